"""What unit tests of handlers import."""
