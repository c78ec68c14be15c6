"""The release of the model archiver whose names these are; manifests tell marserve's own version."""

__version__ = "0.12.0"
