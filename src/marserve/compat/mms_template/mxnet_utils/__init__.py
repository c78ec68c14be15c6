"""Images, arrays and texts for MXNet."""
