"""What can be found wrong with an archive without running it."""

from __future__ import annotations

import ast
import json
import re
import tempfile
import warnings
from pathlib import Path
from typing import Iterator, List, Mapping, Tuple

from marserve.archive.config import config_file, parse_config
from marserve.archive.manifest import (
    MODEL_NAME_PATTERN,
    RUNTIMES,
    Manifest,
    handler_files,
    is_built_in,
    manifest_root,
    read_manifest,
    split_handler,
)
from marserve.archive.needs import asked_of
from marserve.archive.reader import files_below, unpack
from marserve.archive.signature import is_house_form, validate
from marserve.archive.writer import Source
from marserve.errors import ArchiveError, SignatureError


def verify_archive(archive: Path, max_bytes: int) -> List[str]:
    """Read all of an archive and return what is wrong with it, one sentence each; empty when it is sound."""
    try:
        if archive.is_dir():
            return _verify_folder(archive)
        with tempfile.TemporaryDirectory(prefix="marserve-verify-") as folder:
            unpack(archive, Path(folder), max_bytes)
            return _verify_folder(Path(folder))
    except ArchiveError as error:
        return [str(error)]


def _verify_folder(folder: Path) -> List[str]:
    root = manifest_root(folder)
    manifest = read_manifest(root, must_be_whole=False)
    return problems(manifest, dict(files_below(root)))


def problems(manifest: Manifest, entries: Mapping[str, Source]) -> List[str]:
    """Return what is wrong with a manifest and the entries beside it, one sentence each."""
    found: List[str] = []
    if manifest.family == "none":
        found.append("There is no MAR-INF/MANIFEST.json; the server would have to be told name and handler.")
    elif not re.match(MODEL_NAME_PATTERN, manifest.model_name):
        found.append(f"The model name {manifest.model_name!r} does not match {MODEL_NAME_PATTERN}.")
    if manifest.runtime not in RUNTIMES:
        found.append(f"The runtime {manifest.runtime!r} is not one of {', '.join(RUNTIMES)}.")
    missing = [(key, name) for key, name in manifest.named_files() if name not in entries]
    found += [f"The manifest names {name!r} as {key}, and there is no such file." for key, name in missing]
    if manifest.family != "none":
        found += handler_problems(manifest, entries)
    found += signature_problems(manifest, entries)
    config = config_file(manifest)
    if config in entries:
        try:
            asked = asked_of(parse_config(_read(entries[config]), config))
            if asked.file and asked.file not in entries:
                found.append(f"{config} names {asked.file!r} as requirements, and there is no such file.")
        except ArchiveError as error:
            found.append(str(error))
    return found


def signature_problems(manifest: Manifest, entries: Mapping[str, Source]) -> List[str]:
    """Return what keeps the signature from satisfying its schema; empty when it does, or when there is none."""
    try:
        return check_foreign_signature(manifest, entries)
    except SignatureError as error:
        return [str(error)]


def check_foreign_signature(manifest: Manifest, entries: Mapping[str, Source]) -> List[str]:
    """Check a signature as an old archiver may: return what is to be warned of.

    The old ones never looked at the file, so it may be anything; only one in house form has to be right.

    Raises:
        SignatureError: it is in house form, and does not satisfy the schema.
    """
    name = manifest.signature_file
    if name not in entries:
        return []
    try:
        raw = json.loads(_read(entries[name]).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return [f"{name} is no JSON: {error}."]
    try:
        validate(raw)
    except SignatureError as error:
        if is_house_form(raw):
            raise
        return [str(error)]
    return []


def handler_problems(manifest: Manifest, entries: Mapping[str, Source]) -> List[str]:
    """Return what keeps the handler from being found: no file, a syntax error, nothing to call in it."""
    if not manifest.handler:
        return ["The manifest names no handler."]
    if is_built_in(manifest.handler, manifest.runtime) or manifest.runtime == "LSP":
        return []
    name = next((name for name in handler_files(manifest.handler) if name in entries), None)
    if name is None:
        return [f"The handler {manifest.handler!r} is no built-in one, and there is no file for it in the archive."]
    if manifest.runtime == "python2":
        return []
    try:
        # Warnings about the author's code, say an odd escape in a string, are for another day.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(_read(entries[name]), name)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return [f"{name}{line}: {error.msg if isinstance(error, SyntaxError) else error}."]
    return _entry_point_problems(name, split_handler(manifest.handler)[1], module)


def _entry_point_problems(name: str, function: str, module: ast.Module) -> List[str]:
    bound = list(_top_level_names(module.body))
    names = {text for text, _ in bound}
    # Old servers use the one class of a file when the function that was named is not there.
    if "*" in names or (function or "handle") in names or any(is_class for _, is_class in bound):
        return []
    if function:
        return [f"{name} has no function {function!r}, and no class that could be the service."]
    return [f"{name} has neither a function 'handle' nor a class that could be the service."]


def _top_level_names(body: List[ast.stmt]) -> Iterator[Tuple[str, bool]]:
    """Yield each name that a module binds, and whether a class statement does; also below ``if`` and ``try``."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, isinstance(node, ast.ClassDef)
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name, False) for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, False) for target in targets if isinstance(target, ast.Name))
        for part in ("body", "orelse", "finalbody"):
            yield from _top_level_names(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _top_level_names(handler.body)


def _read(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()
