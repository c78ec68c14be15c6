"""Packing a model, from a config or from the command line."""

from __future__ import annotations

from marserve.cli.torch_archiver import pack_model

from .arg_parser import ArgParser
from .model_archiver_config import ModelArchiverConfig
from .model_archiver_error import old_errors


def package_model(config: ModelArchiverConfig, manifest: str) -> None:
    """Write the archive that ``config`` names with ``manifest``, a JSON text, in it.

    Raises:
        FileNotFoundError: a named file is not there.
        ModelArchiverError: the name is not allowed, the output is there, or cannot be written.
    """
    with old_errors():
        pack_model(config, manifest)


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Write the archive that ``config``, or without one the command line, names; raises as ``package_model`` does."""
    package_model(config or ArgParser.export_model_args_parser(), "")


if __name__ == "__main__":
    generate_model_archive()
