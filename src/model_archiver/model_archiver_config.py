"""``ModelArchiverConfig``: what to pack, field by flag."""

from marserve.cli.torch_archiver import ModelArchiverConfig

__all__ = ["ModelArchiverConfig"]
