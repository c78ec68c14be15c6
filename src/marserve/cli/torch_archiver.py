"""``torch-model-archiver``: TorchServe's command, flag by flag. Source: TorchServe model archiver 0.12.0."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from marserve.archive.manifest import MANIFEST_NAME
from marserve.archive.packing import Recipe, check_model_name, collect
from marserve.archive.verify import check_foreign_signature
from marserve.archive.writer import FORMATS, Packed
from marserve.cli.packing import pack, run_archiver, say, summary
from marserve.errors import ArchiveError


@dataclass
class ModelArchiverConfig:
    """What to pack, and where to; the names are those of the flags. Scripts build it by its old name."""

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    runtime: str = "python"
    export_path: str = field(default_factory=os.getcwd)
    archive_format: str = "default"
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ModelArchiverConfig:
        """Return the config that the parsed flags ask for."""
        return cls(**{each.name: getattr(args, each.name) for each in fields(cls)})


def main(argv: list[str] | None = None) -> int:
    """Pack a model; return 0, 1 when it cannot be packed, 2 for wrong flags. Standard output stays empty."""
    config = parse(argv)
    return run_archiver(lambda: say(summary(pack_model(config))))


def pack_model(config: ModelArchiverConfig, manifest: str | None = None) -> Packed:
    """Pack a model; ``manifest`` is written as it is, in place of the one that ``config`` describes.

    Raises:
        ArchiveError: a file is missing (``fault`` is "missing"), the output is there, or cannot be written, or there
            is no such format.
        ManifestError: the model's name is not allowed.
    """
    check_model_name(config.model_name)
    if config.archive_format not in FORMATS:
        raise ArchiveError(
            f"There is no archive format {config.archive_format!r}.", f"Take one of {', '.join(FORMATS)}."
        )
    folder = _export_folder(Path(config.export_path))
    recipe = Recipe(
        model_name=config.model_name,
        version=config.version,
        handler=config.handler,
        serialized_file=config.serialized_file or "",
        model_file=config.model_file or "",
        extra_files=[item for item in (config.extra_files or "").split(",") if item],
        runtime=config.runtime,
        requirements_file=config.requirements_file or "",
        config_file=config.config_file or "",
    )
    contents = collect(recipe)
    contents.warnings += check_foreign_signature(contents.manifest(), contents.entries)
    if manifest is not None:
        contents.entries[MANIFEST_NAME] = manifest.encode()
    # A folder that is there keeps its other files: users add to it by packing again.
    return pack(contents, config.model_name, folder, config.archive_format, config.force, keep_others=True)


def _export_folder(path: Path) -> Path:
    if not path.exists():
        say(f"WARNING - Creating the export-path {path}.")
        path.mkdir(parents=True)
    if not path.is_dir():
        raise ArchiveError(
            f"Given export-path {path} is not a directory. Point to a valid export-path directory.", ""
        )
    return path


def parse(argv: list[str] | None = None) -> ModelArchiverConfig:
    """Return what the command's flags ask for; ends the process by 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog="torch-model-archiver", description="Packs a PyTorch model into a .mar.")
    parser.add_argument("--model-name", required=True, help="name of the model, and of the file that is written")
    parser.add_argument("--serialized-file", help="weights: a state dict, TorchScript, ONNX, AOTInductor, …")
    parser.add_argument("--model-file", help="Python file with the one nn.Module of an eager mode model")
    parser.add_argument(
        "--handler", required=True, help="built-in handler, or a Python file, optionally as file.py:function"
    )
    parser.add_argument("--extra-files", help="files, folders and wildcards, separated by commas")
    parser.add_argument("--runtime", choices=["python", "python3", "LSP"], default="python", help="runs the handler")
    parser.add_argument("--export-path", default=".", help="folder to write to; the working directory by default")
    parser.add_argument(
        "--archive-format",
        choices=["tgz", "no-archive", "zip-store", "default"],
        default="default",
        help="default: NAME.mar; zip-store: the same, nothing deflated; tgz: NAME.tar.gz; no-archive: a folder",
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is there")
    parser.add_argument("-v", "--version", required=True, help="version of the model")
    parser.add_argument("-r", "--requirements-file", help="pip requirements of the handler")
    parser.add_argument("-c", "--config-file", help="YAML file with the model's configuration")
    return ModelArchiverConfig.from_args(parser.parse_args(argv))
