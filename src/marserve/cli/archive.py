"""``marserve archive``: create, inspect, verify and list archives."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from marserve.archive.manifest import LIBRARY_HANDLERS, MANIFEST_NAME, Manifest, manifest_root, read_manifest
from marserve.archive.packing import Recipe, collect
from marserve.archive.reader import archive_format, list_entries, peek
from marserve.archive.roles import fill
from marserve.archive.signature import load_signature
from marserve.archive.sink import MAX_BYTES
from marserve.archive.store import list_store
from marserve.archive.verify import problems, verify_archive
from marserve.archive.writer import FORMATS
from marserve.cli.packing import pack, run_archiver, say
from marserve.cli.tables import print_table
from marserve.errors import ArchiveError, SignatureError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(subparsers: Subparsers) -> None:
    """Register the commands; each sets ``run``, which takes the parsed arguments and returns the exit code."""
    _add_create(subparsers)
    inspect = subparsers.add_parser("inspect", help="show manifest, signature and files")
    inspect.add_argument("archive", type=Path, help="a .mar, a .tar.gz or a folder")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(run=lambda args: run_archiver(lambda: _inspect(args.archive, args.json)))
    verify = subparsers.add_parser("verify", help="read all of an archive and say what is wrong with it")
    verify.add_argument("archive", type=Path, help="a .mar, a .tar.gz or a folder")
    verify.add_argument("--max-bytes", type=int, default=MAX_BYTES, help="most bytes unpacked (default: %(default)s)")
    verify.set_defaults(run=lambda args: run_archiver(lambda: _verify(args.archive, args.max_bytes)))
    listing = subparsers.add_parser("list", help="list the archives of a model store")
    listing.add_argument("store", type=Path, help="folder with archives")
    listing.add_argument("--json", action="store_true", help="print a JSON list")
    listing.set_defaults(run=lambda args: run_archiver(lambda: _list(args.store, args.json)))


def _add_create(subparsers: Subparsers) -> None:
    create = subparsers.add_parser(
        "create",
        help="pack a folder or single files",
        description="Packs an archive. In a folder the handler, the weights, the model file, requirements.txt and"
        " model-config.yaml are found by their names unless an option names them.",
    )
    create.set_defaults(run=lambda args: run_archiver(lambda: _create(args)))
    create.add_argument("folder", nargs="?", type=Path, help="folder whose files are packed; same as --from-folder")
    create.add_argument("--from-folder", type=Path, metavar="FOLDER", help="folder whose files are packed")
    create.add_argument("--model-name", default="", help="default: the folder's name")
    create.add_argument("-v", "--version", default="", help="version of the model (default: 1.0)")
    services = ", ".join(sorted(LIBRARY_HANDLERS))
    create.add_argument("--handler", default="", help=f"file.py, file.py:function, or one of {services}")
    create.add_argument("--serialized-file", "--weights", default="", metavar="FILE", help="weights of the model")
    create.add_argument("--model-file", default="", metavar="FILE", help="Python file with the one nn.Module")
    create.add_argument(
        "--extra-files", action="append", default=[], metavar="FILES", help="files, folders, wildcards; comma list"
    )
    create.add_argument("--signature", default="", metavar="FILE", help="packed as signature.json")
    create.add_argument("-r", "--requirements-file", "--requirements", default="", metavar="FILE", help="for pip")
    create.add_argument("-c", "--config-file", default="", metavar="FILE", help="the model-config.yaml")
    create.add_argument("--runtime", choices=["python", "python3", "LSP"], default="", help="default: python")
    create.add_argument(
        "--format", "--archive-format", choices=list(FORMATS), default="default", help="default: a deflated .mar"
    )
    create.add_argument(
        "--output",
        "--export-path",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="where to write (default: here)",
    )
    create.add_argument("-f", "--force", action="store_true", help="overwrite what is there")


def _create(args: argparse.Namespace) -> None:
    recipe, lines = _recipe(args)
    for line in lines:
        say(line)
    contents = collect(recipe)
    wrong = problems(contents.manifest(), contents.entries)
    if wrong:
        raise ArchiveError("\n".join(wrong), "Nothing was packed.")
    args.output.mkdir(parents=True, exist_ok=True)
    packed = pack(contents, recipe.model_name, args.output, args.format, args.force)
    print(packed.path)
    print(f"{packed.size} bytes")
    print(f"SHA-256 {packed.sha256}")


def _recipe(args: argparse.Namespace) -> tuple[Recipe, list[str]]:
    if args.folder is not None and args.from_folder is not None and args.folder != args.from_folder:
        raise ArchiveError("Two folders are named.", "Name one; add single files of another by --extra-files.")
    folder: Path | None = args.folder or args.from_folder
    if folder is not None and not folder.is_dir():
        raise ArchiveError(f"{folder} is no folder.", "Name the folder with the model's files.")
    before = read_manifest(folder, must_be_whole=False) if folder is not None else Manifest()
    name = args.model_name or before.model_name or (folder.resolve().name if folder is not None else "")
    if not name:
        raise ArchiveError("The model has no name.", "Give it one: --model-name NAME.")
    recipe = Recipe(
        model_name=name,
        version=args.version or before.version,
        handler=args.handler,
        serialized_file=args.serialized_file,
        model_file=args.model_file,
        extra_files=[item for given in args.extra_files for item in given.split(",") if item],
        runtime=args.runtime or before.runtime,
        requirements_file=args.requirements_file,
        config_file=args.config_file,
        signature_file=args.signature,
        folder=folder,
    )
    recipe, lines = fill(recipe, before) if folder is not None else (recipe, [])
    if not recipe.handler:
        raise ArchiveError(
            "No handler is named, and none was found.",
            "Name it: --handler FILE.py, FILE.py:FUNCTION, or a service of the library: "
            f"{', '.join(sorted(LIBRARY_HANDLERS))}.",
        )
    return recipe, lines


def _inspect(archive: Path, as_json: bool) -> None:
    found = _description(archive)
    if as_json:
        print(json.dumps(found, indent=2, default=str))
        return
    for key in ("path", "format", "sha256", "family"):
        print(f"{key:10}{found[key]}")
    for title in ("manifest", "signature"):
        print(f"\n{title}")
        print(json.dumps(found[title], indent=2) if found[title] else "  none")
    print()
    files = found["files"]
    assert isinstance(files, list)
    rows = [(file["name"], str(file["size"]), _packed_size(file), file["method"]) for file in files]
    print_table(("file", "bytes", "packed", "method"), rows)


def _packed_size(file: dict[str, object]) -> str:
    return "-" if file["packed_size"] is None else str(file["packed_size"])


def _description(archive: Path) -> dict[str, object]:
    """Return what ``inspect`` shows; only the small files are unpacked for it."""
    kind = archive_format(archive)
    with tempfile.TemporaryDirectory(prefix="marserve-inspect-") as folder:
        root = manifest_root(archive) if kind == "folder" else Path(folder)
        manifest = read_manifest(root, must_be_whole=False) if kind == "folder" else peek(archive, root)
        try:
            signature = load_signature(root, manifest.signature_file, strict=True)
            shown = signature.raw if signature else None
        except SignatureError as error:
            shown = f"not usable: {error}"
    entries = list_entries(archive)
    return {
        "path": str(archive),
        "format": kind,
        "sha256": "" if kind == "folder" else _sha256(archive),
        "family": manifest.family,
        "manifest": manifest.raw,
        "signature": shown,
        "files": [
            {
                "name": entry.name,
                "size": entry.size,
                "packed_size": None if entry.packed_size < 0 else entry.packed_size,
                "method": entry.method,
            }
            for entry in entries
            if entry.name != MANIFEST_NAME
        ],
    }


def _sha256(archive: Path) -> str:
    with open(archive, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(archive: Path, max_bytes: int) -> None:
    wrong = verify_archive(archive, max_bytes)
    if wrong:
        raise ArchiveError("\n".join([f"{archive} has {len(wrong)} problem(s).", *wrong]), "")
    print(f"{archive}: all files can be read; manifest, handler, signature and configuration are in order.")


def _list(store: Path, as_json: bool) -> None:
    found = list_store(store)
    if as_json:
        rows = [{"name": item.name, "size": item.size, "format": item.format} for item in found]
        print(json.dumps(rows, indent=2))
        return
    if not found:
        print(f"{store} holds no archives.", file=sys.stderr)
        return
    print_table(("name", "bytes", "format"), [(item.name, str(item.size), item.format) for item in found])
