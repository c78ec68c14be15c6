"""Packing a model, from a config or from the command line."""

from __future__ import annotations

from marserve.cli.torch_archiver import pack_model

from .arg_parser import ArgParser
from .manifest_components.manifest import RuntimeType
from .model_archiver_config import ModelArchiverConfig
from .model_archiver_error import ModelArchiverError, old_errors
from .model_packaging_utils import ModelExportUtils

__all__ = ["ArgParser", "ModelArchiverConfig", "ModelArchiverError", "ModelExportUtils"]
__all__ += ["generate_model_archive", "package_model"]


def package_model(config: ModelArchiverConfig, manifest: str) -> None:
    """Write the archive that ``config`` names with ``manifest``, a JSON text, in it as it is.

    Raises:
        FileNotFoundError: a named file is not there.
        ModelArchiverError: the name is not allowed, the output is there, or cannot be written.
    """
    with old_errors():
        pack_model(config, manifest)


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Write the archive that ``config``, or without one the command line, names.

    Raises as ``package_model`` does, and ValueError for a runtime that is none.
    """
    config = config or ArgParser.export_model_args_parser()
    RuntimeType(config.runtime)
    with old_errors():
        pack_model(config)


if __name__ == "__main__":
    generate_model_archive()
