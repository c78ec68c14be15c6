"""What server and workers say to each other: values, bytes, and the only sockets of the wire."""
