"""What the files of a folder are for, where nobody says so: the handler, the weights, the model file, …"""

from __future__ import annotations

import ast
import warnings
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Callable, Dict, List, Tuple

from marserve.archive.config import CONFIG_NAME
from marserve.archive.manifest import Manifest
from marserve.archive.packing import Recipe
from marserve.errors import ArchiveError

_HANDLER_NAMES = ("handler.py", "service.py", "*_handler.py", "*_service.py")
_WEIGHTS_NAMES = ("*.onnx", "*.safetensors", "*.pt", "*.pth", "*.pt2", "*.bin", "*.so")

#: What to call each field when an author has to name the file.
_OPTIONS = {
    "handler": "--handler",
    "serialized_file": "--serialized-file",
    "model_file": "--model-file",
    "requirements_file": "--requirements-file",
    "config_file": "--config-file",
}


def fill(recipe: Recipe, manifest: Manifest) -> Tuple[Recipe, List[str]]:
    """Complete a recipe from its folder; what is given stays as it is.

    Args:
        recipe: has a ``folder``; empty fields are looked for.
        manifest: of the folder, if it was an archive once; it is asked before the file names are.

    Returns:
        The recipe, and one line for each file that was found by its name.

    Raises:
        ArchiveError: several files could be meant.
    """
    assert recipe.folder is not None
    found: Dict[str, str] = {}
    lines = []
    for name, option in _OPTIONS.items():
        found[name] = getattr(recipe, name) or getattr(manifest, name)
        if not found[name] and manifest.family == "none":
            found[name] = _only(recipe.folder, _FINDERS[name], option)
            lines += [f"{option} {found[name]} (found in {recipe.folder})"] if found[name] else []
    completed = replace(
        recipe,
        handler=found["handler"],
        serialized_file=found["serialized_file"],
        model_file=found["model_file"],
        requirements_file=found["requirements_file"],
        config_file=found["config_file"],
    )
    return completed, lines


def _only(folder: Path, finder: Callable[[Path], bool], option: str) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and finder(path))
    if len(names) > 1:
        raise ArchiveError(f"{folder} has several files that {option} could mean: {', '.join(names)}.", "Name one.")
    return names[0] if names else ""


def _named(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: any(fnmatch(path.name, pattern) for pattern in patterns)


def _holds_one_module(path: Path) -> bool:
    """Tell whether a Python file defines exactly one class whose base is some ``Module``: a model file."""
    if path.suffix != ".py":
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return False
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    bases = [base for node in classes for base in node.bases]
    names = [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in bases]
    return names.count("Module") == 1


_FINDERS: Dict[str, Callable[[Path], bool]] = {
    "handler": _named(*_HANDLER_NAMES),
    "serialized_file": _named(*_WEIGHTS_NAMES),
    "model_file": _holds_one_module,
    "requirements_file": _named("requirements.txt"),
    "config_file": _named(CONFIG_NAME),
}
