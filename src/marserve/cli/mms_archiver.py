"""``model-archiver``: Multi Model Server's command, flag by flag. Source: model-archiver 1.0.3."""

from __future__ import annotations

import argparse
from pathlib import Path

from marserve.archive.packing import check_model_name, collect_mms
from marserve.archive.verify import check_foreign_signature
from marserve.archive.writer import output_path
from marserve.cli.packing import pack, run_archiver, say, summary
from marserve.errors import ArchiveError


def main(argv: list[str] | None = None) -> int:
    """Pack a folder; return 0, 1 when it cannot be packed, 2 for wrong flags. Standard output stays empty."""
    args = _parser().parse_args(argv)
    return run_archiver(lambda: _pack(args))


def _pack(args: argparse.Namespace) -> None:
    check_model_name(args.model_name)
    if not args.model_path.is_dir():
        raise ArchiveError(
            f"Given model-path {args.model_path} is not a valid directory. Point to a valid model-path directory.", ""
        )
    if not args.export_path.is_dir():
        raise ArchiveError(
            f"Given export-path {args.export_path} is not a directory. Point to a valid export-path directory.", ""
        )
    contents = collect_mms(args.model_path, args.model_name, args.handler, args.runtime)
    if args.convert:
        # Here and not above: whoever converts nothing need not wait for it.
        from marserve.archive.onnx_conversion import convert_contents

        done = convert_contents(contents, args.model_path, args.model_name)
        say(done or f"{args.model_path} has no .onnx file: there is nothing to convert.")
    contents.warnings += check_foreign_signature(contents.manifest(), contents.entries)
    output = output_path(args.export_path, args.model_name, args.archive_format)
    if output.is_dir() and output.samefile(args.model_path):
        # The folder is in its place already; it lacks the manifest alone, and what was made by a conversion.
        contents.entries = {name: source for name, source in contents.entries.items() if isinstance(source, bytes)}
    say(summary(pack(contents, args.model_name, args.export_path, args.archive_format, args.force, keep_others=True)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-archiver", description="Packs the folder of a model into a .mar.")
    parser.add_argument("--model-name", required=True, help="name of the model, and of the file that is written")
    parser.add_argument("--model-path", required=True, type=Path, help="folder with all files of the model")
    parser.add_argument("--handler", required=True, help="module or file of the service, optionally with :function")
    parser.add_argument(
        "--runtime", choices=["python", "python2", "python3"], default="python", help="interpreter of the handler"
    )
    parser.add_argument(
        "--export-path", type=Path, default=Path(), help="folder to write to; the working directory by default"
    )
    parser.add_argument(
        "--archive-format",
        choices=["default", "tgz", "no-archive"],
        default="default",
        help="default: NAME.mar; tgz: NAME.tar.gz; no-archive: a folder",
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is there")
    parser.add_argument(
        "-c", "--convert", action="store_true", help="pack an .onnx file as MXNet's symbol and parameters"
    )
    return parser
