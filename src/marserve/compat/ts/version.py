"""The release of TorchServe whose names these are: handlers compare with it."""

__version__ = "0.12.0"
