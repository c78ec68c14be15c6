"""``torch-model-archiver``: TorchServe's command, flag by flag. Source: TorchServe model archiver 0.12.0."""

from __future__ import annotations

import argparse
from pathlib import Path

from marserve.archive.packing import Recipe, check_model_name, collect
from marserve.archive.verify import check_foreign_signature
from marserve.archive.writer import FORMATS
from marserve.cli.packing import pack, run_archiver, say, summary
from marserve.errors import ArchiveError


def main(argv: list[str] | None = None) -> int:
    """Pack a model; return 0, 1 when it cannot be packed, 2 for wrong flags. Standard output stays empty."""
    args = _parser().parse_args(argv)
    return run_archiver(lambda: _pack(args))


def _pack(args: argparse.Namespace) -> None:
    check_model_name(args.model_name)
    folder = _export_folder(args.export_path)
    recipe = Recipe(
        model_name=args.model_name,
        version=args.version,
        handler=args.handler,
        serialized_file=args.serialized_file or "",
        model_file=args.model_file or "",
        extra_files=[item for item in (args.extra_files or "").split(",") if item],
        runtime=args.runtime,
        requirements_file=args.requirements_file or "",
        config_file=args.config_file or "",
    )
    contents = collect(recipe)
    contents.warnings += check_foreign_signature(contents.manifest(), contents.entries)
    # A folder that is there keeps its other files: users add to it by packing again.
    say(summary(pack(contents, args.model_name, folder, args.archive_format, args.force, keep_others=True)))


def _export_folder(path: Path) -> Path:
    if not path.exists():
        say(f"WARNING - Creating the export-path {path}.")
        path.mkdir(parents=True)
    if not path.is_dir():
        raise ArchiveError(
            f"Given export-path {path} is not a directory. Point to a valid export-path directory.", ""
        )
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torch-model-archiver", description="Packs a PyTorch model into a .mar.")
    parser.add_argument("--model-name", required=True, help="name of the model, and of the file that is written")
    parser.add_argument("--serialized-file", help="weights: a state dict, TorchScript, ONNX, AOTInductor, …")
    parser.add_argument("--model-file", help="Python file with the one nn.Module of an eager mode model")
    parser.add_argument(
        "--handler", required=True, help="built-in handler, or a Python file, optionally as file.py:function"
    )
    parser.add_argument("--extra-files", help="files, folders and wildcards, separated by commas")
    parser.add_argument("--runtime", choices=["python", "python3", "LSP"], default="python", help="runs the handler")
    parser.add_argument(
        "--export-path", type=Path, default=Path(), help="folder to write to; the working directory by default"
    )
    parser.add_argument(
        "--archive-format",
        choices=list(FORMATS),
        default="default",
        help="default: NAME.mar; zip-store: the same, nothing deflated; tgz: NAME.tar.gz; no-archive: a folder",
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is there")
    parser.add_argument("-v", "--version", required=True, help="version of the model")
    parser.add_argument("-r", "--requirements-file", help="pip requirements of the handler")
    parser.add_argument("-c", "--config-file", help="YAML file with the model's configuration")
    return parser
