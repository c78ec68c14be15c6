"""The release of Multi Model Server whose names these are: handlers compare with it."""

__version__ = "1.1.11"
