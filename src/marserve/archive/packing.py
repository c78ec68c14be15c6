"""From what an author names to the entries and the manifest of an archive."""

from __future__ import annotations

import glob
import json
import os
import re
import sys
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from marserve import __version__
from marserve.archive.manifest import (
    MANIFEST_NAME,
    MODEL_NAME_PATTERN,
    Manifest,
    is_built_in,
    split_handler,
)
from marserve.archive.signature import SIGNATURE_NAME
from marserve.archive.writer import Source, build_time
from marserve.errors import ArchiveError, ManifestError

_SKIPPED_FOLDERS = ("__MACOSX", "__pycache__")
#: Files that never belong into an archive, beside the manifest that is written anew.
_SKIPPED_FILES = ("*.pyc", "*.DS_Store", "*.mar")
#: Multi Model Server's archiver also drops every file of that name, at any depth.
_MMS_SKIPPED_FILES = (*_SKIPPED_FILES, "MANIFEST.json")


@dataclass(frozen=True)
class Recipe:
    """What an author names. Paths are as they were given; empty where an option was not.

    Attributes:
        handler: a file, ``file:function`` or a built-in name; looked for in ``folder`` first.
        extra_files: files, folders (their contents go in) and wildcards.
        folder: packed as a tree; the other files are added to it.
        signature_file: packed as ``signature.json``.
    """

    model_name: str
    version: str
    handler: str
    serialized_file: str = ""
    model_file: str = ""
    extra_files: Sequence[str] = ()
    runtime: str = "python"
    requirements_file: str = ""
    config_file: str = ""
    signature_file: str = ""
    folder: Optional[Path] = None


@dataclass
class Contents:
    """What goes into an archive: source by name, manifest included, and what the author should be told."""

    entries: Dict[str, Source] = field(default_factory=dict)
    warnings: List[str] = field(default_factory=list)

    def add(self, name: str, path: Path) -> None:
        """Add a file; where two want the same name the later one wins, and the author is told.

        Raises:
            ArchiveError: no such file; ``fault`` is "missing".
        """
        if not path.is_file():
            error = ArchiveError(f"File does not exist: {path}", "Check the path.")
            error.fault = "missing"
            raise error
        before = self.entries.get(name)
        if isinstance(before, Path) and not before.samefile(path):
            self.warnings.append(f"{path} replaces {before}: both would be {name} in the archive.")
        self.entries[name] = path

    def set_manifest(self, manifest: Mapping[str, object]) -> None:
        """Add the manifest, whatever the sources hold under its name."""
        self.entries[MANIFEST_NAME] = json.dumps(manifest, indent=2).encode()

    def manifest(self) -> Manifest:
        """Return the manifest as a reader will see it."""
        text = self.entries[MANIFEST_NAME]
        assert isinstance(text, bytes)
        return Manifest.parse(json.loads(text))


def check_model_name(name: str) -> None:
    """Raise ManifestError for a name that the archivers do not accept."""
    if not re.match(MODEL_NAME_PATTERN, name):
        raise ManifestError(
            "Model name contains special characters.\n"
            f"The allowed regular expression filter for model name is: {MODEL_NAME_PATTERN}",
            "",
        )


def collect(recipe: Recipe) -> Contents:
    """Gather an archive with a TorchServe manifest, single files under their base names in its root.

    Where two have the same base name, the one that TorchServe's archiver copies last wins: extra files over weights,
    handler and model file, requirements and configuration over all.

    Raises:
        ArchiveError: a named file does not exist.
        ManifestError: the model's name is not allowed.
    """
    check_model_name(recipe.model_name)
    contents = Contents()
    if recipe.folder is not None:
        for name, path in tree(recipe.folder, _SKIPPED_FILES, follows_links=True):
            contents.add(name, path)
    named = {
        "serializedFile": _place(contents, recipe, recipe.serialized_file),
        "handler": _place_handler(contents, recipe),
        "modelFile": _place(contents, recipe, recipe.model_file),
        "modelVersion": recipe.version,
    }
    for name, path in extra_files(recipe.extra_files, contents.warnings):
        contents.add(name, path)
    if recipe.signature_file:
        contents.add(SIGNATURE_NAME, Path(recipe.signature_file))
    named["requirementsFile"] = _place(contents, recipe, recipe.requirements_file)
    named["configFile"] = _place(contents, recipe, recipe.config_file)
    model = {"modelName": recipe.model_name, **{key: value for key, value in named.items() if value}}
    contents.set_manifest(torchserve_manifest(recipe.runtime, model))
    return contents


def torchserve_manifest(runtime: str, model: Mapping[str, object]) -> Dict[str, object]:
    """Return a manifest in TorchServe's form around its ``model``."""
    return {
        "createdOn": time.strftime("%d/%m/%Y %H:%M:%S", time.gmtime(build_time())),
        "runtime": runtime,
        "model": dict(model),
        "archiverVersion": __version__,
    }


def collect_mms(folder: Path, model_name: str, handler: str, runtime: str) -> Contents:
    """Gather a whole folder with a Multi Model Server manifest, as ``model-archiver`` does.

    Raises:
        ArchiveError: a file in the folder cannot be read.
    """
    contents = Contents()
    for name, path in tree(folder, _MMS_SKIPPED_FILES, follows_links=False):
        contents.add(name, path)
    manifest = {
        "runtime": runtime,
        "model": {"modelName": model_name, "handler": handler},
        "modelServerVersion": "1.0",
        "implementationVersion": "1.0",
        "specificationVersion": "1.0",
    }
    contents.set_manifest(manifest)
    return contents


def tree(folder: Path, skipped_files: Iterable[str], follows_links: bool) -> Iterator[Tuple[str, Path]]:
    """Yield name and path of the files below a folder; hidden folders and caches are left out.

    Args:
        skipped_files: patterns of base names.
        follows_links: go into folders that are links. Links to files are always followed.
    """
    patterns = tuple(skipped_files)
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=follows_links):
        # A link to a folder above would otherwise be walked until the path is too long.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _SKIPPED_FOLDERS)
        for name in sorted(names):
            inside = Path(parent, name).relative_to(folder).as_posix()
            if inside != MANIFEST_NAME and not any(fnmatch(name, pattern) for pattern in patterns):
                yield inside, Path(parent, name)


def extra_files(items: Sequence[str], warnings: List[str]) -> Iterator[Tuple[str, Path]]:
    """Yield name and path of the files that items name: files, wildcards, and folders, whose contents go in."""
    for item in items:
        paths = [item]
        if glob.has_magic(item) and not os.path.exists(item):
            paths = sorted(glob.glob(item.strip()))  # a blank after the comma, as the original forgives it
            if not paths:
                warnings.append(f"Given wildcard pattern did not match any file: {item}")
        for path in map(Path, paths):
            if path.is_dir():
                yield from _files_of(path, warnings)
            else:
                yield path.name, path


def _files_of(folder: Path, warnings: List[str]) -> Iterator[Tuple[str, Path]]:
    """Yield name and path of the files in a folder; links that lead nowhere, sockets and the like are left out."""
    for name, path in tree(folder, (), follows_links=True):
        if path.is_file():
            yield name, path
        else:
            warnings.append(f"{path} is no file, and left out.")


def _place(contents: Contents, recipe: Recipe, given: str) -> str:
    """Add a named file and return its name in the archive: its own inside the folder, else its base name."""
    if not given:
        return ""
    if recipe.folder is not None and (recipe.folder / given).is_file() and not Path(given).is_absolute():
        name = Path(os.path.normpath(given)).as_posix()
        contents.add(name, recipe.folder / given)
        return name
    contents.add(Path(given).name, Path(given))
    return Path(given).name


def _place_handler(contents: Contents, recipe: Recipe) -> str:
    """Add the handler's file and return what the manifest says: what was given, without its folders."""
    if is_built_in(recipe.handler, recipe.runtime):
        return recipe.handler
    module, function = split_handler(recipe.handler)
    suffix = ".py"
    if recipe.runtime == "LSP":
        suffix = ".dylib" if sys.platform == "darwin" else ".so"
    file = module if module.endswith(suffix) else module + suffix
    placed = _place(contents, recipe, file)
    name = placed if module == file else placed[: -len(suffix)]
    return f"{name}:{function}" if function else name
