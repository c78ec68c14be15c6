"""The import names of Multi Model Server, for services in workers: ``worker/loader.py`` puts them on the path."""

from .version import __version__

__all__ = ["__version__"]
