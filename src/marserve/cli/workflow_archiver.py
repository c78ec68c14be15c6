"""``torch-workflow-archiver``: TorchServe's command, flag by flag. Source: TorchServe workflow archiver 0.2.15."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

from marserve import __version__
from marserve.archive.manifest import MODEL_NAME_PATTERN
from marserve.archive.packing import Contents, extra_files
from marserve.archive.writer import build_time, write_archive
from marserve.cli.packing import run_archiver, say
from marserve.errors import ArchiveError, ManifestError

#: Where the manifest of a workflow lies.
MANIFEST_NAME = "WAR-INF/MANIFEST.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Pack a workflow; return 0, 1 when it cannot be packed, 2 for wrong flags. Standard output stays empty."""
    arguments = _parser().parse_args(argv)
    return run_archiver(lambda: pack_workflow(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-workflow-archiver", description="Packs a workflow of TorchServe into a .war."
    )
    parser.add_argument("--workflow-name", required=True, help="name of the workflow, and of the file")
    parser.add_argument("--spec-file", required=True, help="YAML file with the models and their graph")
    parser.add_argument("--handler", help="Python file with the functions that are nodes of the graph")
    parser.add_argument("--export-path", default=".", help="folder to write to; the working directory by default")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is there")
    parser.add_argument("--extra-files", help="files, folders and wildcards, separated by commas")
    return parser


def pack_workflow(arguments: argparse.Namespace) -> None:
    """Write ``NAME.war``: the files under their base names, and the manifest.

    Raises:
        ManifestError: the workflow's name is not allowed.
        ArchiveError: a file is missing, the folder is none, the output is there, or cannot be written.
    """
    name, folder = arguments.workflow_name, Path(arguments.export_path)
    if not re.match(MODEL_NAME_PATTERN, name):
        raise ManifestError(
            "Workflow name contains special characters.\n"
            f"The allowed regular expression filter for workflow name is: {MODEL_NAME_PATTERN}",
            "",
        )
    if not folder.is_dir():
        raise ArchiveError(
            f"Given export-path {folder} is not a directory. Point to a valid export-path directory.", ""
        )
    contents = Contents()
    for given in (arguments.spec_file, arguments.handler):
        if given:
            contents.add(Path(given).name, Path(given))
    items = [item for item in (arguments.extra_files or "").split(",") if item]
    for inside, path in extra_files(items, contents.warnings):
        contents.add(inside, path)
    contents.entries[MANIFEST_NAME] = json.dumps(_manifest(arguments), indent=2).encode()
    output = folder / f"{name}.war"
    if output.exists() and not arguments.force:
        raise ArchiveError(
            f"{output} already exists.",
            "Please specify --force/-f option to overwrite the workflow archive output file.\n"
            "See -h/--help for more details.",
        )
    if output.exists():
        contents.warnings.append(f"Overwriting {output} ...")
    for warning in contents.warnings:
        say(f"WARNING - {warning}")
    packed = write_archive(contents.entries, output, "default", arguments.force)
    say(f"{packed.path}: {packed.size} bytes, SHA-256 {packed.sha256}")


def _manifest(arguments: argparse.Namespace) -> dict[str, object]:
    workflow = {"workflowName": arguments.workflow_name, "specFile": Path(arguments.spec_file).name}
    if arguments.handler:
        workflow["handler"] = Path(arguments.handler).name
    created = time.strftime("%d/%m/%Y %H:%M:%S", time.gmtime(build_time()))
    return {"createdOn": created, "workflow": workflow, "archiverVersion": __version__}
