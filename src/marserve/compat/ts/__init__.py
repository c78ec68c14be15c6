"""The import names of TorchServe, for services in workers: ``worker/loader.py`` puts them on the path there."""

from .version import __version__

__all__ = ["__version__"]
