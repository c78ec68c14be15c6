"""Loads the module that is to be exported: from a Python file, an archive, TorchScript or an exported program."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from marserve.archive.manifest import manifest_root, read_manifest, split_handler
from marserve.archive.packing import Recipe
from marserve.archive.reader import archive_format, unpack
from marserve.archive.roles import fill
from marserve.archive.sink import MAX_BYTES
from marserve.errors import ConfigError, LoadError, ServeError
from marserve.service.context import Context
from marserve.service.torch import STATE_HINT, SUFFIXES, TorchService, read_state

#: Of what a module draws while it is made, so that two exports of it are the same.
SEED = 0

_FORMS_HINT = "Name FILE.py:CLASS, an archive (.mar, .tar.gz, folder), TorchScript (.pt, .pth) or a program (.pt2)."


class Source(NamedTuple):
    """A module that is to be exported.

    Attributes:
        module: an ``nn.Module``, TorchScript included, on the CPU and in evaluation mode.
        path: the file or folder that was named.
        notes: what the user should know of how it was loaded.
    """

    module: Any
    path: Path
    notes: tuple[str, ...] = ()


@contextmanager
def opened(model: str, weights: Path | None) -> Iterator[Source]:
    """Load what ``model`` names; what has to be unpacked for it is gone after the block.

    Args:
        model: ``file.py:Class``, or a path; see ``_FORMS_HINT``.
        weights: a state dict for the class; None keeps the values that the module is made with.

    Raises:
        ConfigError: there is no such thing, or weights are given for what has its own.
        LoadError, ArchiveError: it cannot be loaded.
    """
    file, name = split_handler(model)
    path = Path(file)
    if path.suffix == ".py":
        if not name:
            raise ConfigError(f"{model} names no class.", f"Name it: {model}:CLASS.")
        notes = () if weights else ("No --weights: the module is exported with the values that it is made with.",)
        yield Source(_from_python(path, name, weights), path, notes)
        return
    path = Path(model)
    if not path.exists():
        raise ConfigError(f"There is no {model}.", _FORMS_HINT)
    if weights is not None:
        raise ConfigError(f"{model} has its own weights; --weights is for FILE.py:CLASS.", "Leave it out.")
    if path.is_file() and path.suffix in SUFFIXES:
        yield Source(_from_file(path), path)
        return
    with tempfile.TemporaryDirectory(prefix="marserve-export-") as folder:
        yield Source(_from_archive(path, Path(folder)), path)


def _from_python(file: Path, name: str, weights: Path | None) -> Any:
    """Return what a class, or a function, of a Python file makes, with the weights in it."""
    maker = getattr(_imported(file), name, None)
    if not callable(maker):
        raise LoadError(f"{file} has no class {name}.", "Name the nn.Module, or a function that returns one.")
    torch.manual_seed(SEED)
    hint = "Name a class that is made without arguments, or a function that returns the module."
    module = guarded(f"{name} of {file.name} cannot be made", hint, maker)
    if not isinstance(module, torch.nn.Module):
        raise LoadError(f"{name} of {file.name} gives {type(module).__name__} and no nn.Module.", hint)
    if weights is not None:
        failed = f"{weights} cannot be loaded into {name}"
        state = guarded(failed, STATE_HINT, lambda: read_state(str(weights), "cpu"))
        guarded(failed, "Name the class that the weights are of.", lambda: module.load_state_dict(state))
    return module.cpu().eval()


def _imported(file: Path) -> Any:
    """Return a Python file as a module; it may import what lies beside it."""
    if not file.is_file():
        raise ConfigError(f"There is no {file}.", "Name the Python file with the nn.Module.")
    sys.path.insert(0, str(file.resolve().parent))
    name = file.stem if file.stem not in sys.modules else f"_{file.stem}"  # a file may be called like a library
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # TorchScript and pickles look a class up by the name of its module
    execute = spec.loader.exec_module
    guarded(f"{file} cannot be imported", "", lambda: execute(module))
    return module


def _from_archive(path: Path, folder: Path) -> Any:
    """Return the module of an archive, as ``TorchService`` loads it."""
    if archive_format(path) == "folder":
        root = manifest_root(path)
    else:
        unpack(path, folder, MAX_BYTES)
        root = manifest_root(folder)
    manifest = read_manifest(root)
    weights, model_file = manifest.serialized_file, manifest.model_file
    if manifest.family == "none":  # a folder that is yet to be packed: its parts are found as for packing
        recipe, _ = fill(Recipe("", "", handler="not looked for", folder=root), manifest)
        weights, model_file = recipe.serialized_file, recipe.model_file
    if weights and not weights.endswith(SUFFIXES):
        raise LoadError(f"The weights of {path} are not torch's: {weights}.", f"These are: {', '.join(SUFFIXES)}.")
    return _loaded(root.resolve(), weights, model_file)


def _from_file(path: Path) -> Any:
    try:
        return _loaded(path.resolve().parent, path.name, "")
    except LoadError as error:
        hint = f"Of a state dict the class has to be named: FILE.py:CLASS --weights {path}."
        raise LoadError(error.message, hint) from error


def _loaded(folder: Path, weights: str, model_file: str) -> Any:
    service = TorchService()
    manifest = {"model": {"serializedFile": weights, "modelFile": model_file}}
    service.load(Context("export", str(folder), manifest, thread_count=0))  # torch keeps the threads that it has
    return service.model


def guarded(what: str, hint: str, call: Callable[[], Any]) -> Any:
    """Return ``call()``; what the author's code or torch raises becomes a LoadError that begins with ``what``."""
    try:
        return call()
    except (MemoryError, ServeError):
        raise
    except Exception as error:  # torch, onnx and the author's code each raise their own
        raise LoadError(f"{what}: {in_words(error)}", hint) from error


def in_words(error: BaseException) -> str:
    """Return class, beginning and place of an exception: exporters add pages of advice, and hide the line."""
    while isinstance(error, torch.onnx.OnnxExporterError) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    text = "\n".join(lines[:_MOST_LINES]) + "\n…" * (len(lines) > _MOST_LINES)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours_or_torchs(frame.filename)]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{place}: {text}"


#: Lines that are shown of an exception.
_MOST_LINES = 6


def _is_ours_or_torchs(file: str) -> bool:
    packages = (Path(torch.__file__).parent, Path(__file__).parents[1], Path(importlib.__file__).parent)
    return file.startswith("<") or any(package in Path(file).parents for package in packages)
