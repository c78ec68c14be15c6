"""What unit tests of handlers stand on."""
