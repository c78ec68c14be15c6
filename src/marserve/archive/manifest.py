"""``MANIFEST.json``: what an archive says of itself, in the forms of both old families and of all their ages."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

from marserve.errors import ManifestError

#: Where the manifest lies in every archive since 1.0 of both families.
MANIFEST_NAME = "MAR-INF/MANIFEST.json"
#: Where 0.x archives of Multi Model Server keep theirs; they may also have one folder around everything.
LEGACY_MANIFEST_NAME = "MANIFEST.json"

#: Handlers that a manifest may name without carrying a file. Source: TorchServe model archiver, ``--handler``.
BUILT_IN_HANDLERS = frozenset(
    (
        "base_handler",
        "text_classifier",
        "image_classifier",
        "object_detector",
        "image_segmenter",
        "dali_image_classifier",
        "vllm_handler",
        "trt_llm_handler",
    )
)
#: Short names of services of our own library, which need no file either.
LIBRARY_HANDLERS = frozenset(("mxnet_service", "onnx_service", "torch_service"))
#: Handlers of the C++ runtime that come without a file.
BUILT_IN_LSP_HANDLERS = frozenset(("BaseHandler", "TorchScriptHandler"))
RUNTIMES = ("python", "python2", "python3", "LSP")
#: Those that Multi Model Server takes.
MMS_RUNTIMES = RUNTIMES[:3]

#: Model names that the archivers accept; both families share the rule.
MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$"

#: Attribute of Manifest, key in the manifest's ``model``.
_MODEL_KEYS = (
    ("model_name", "modelName"),
    ("version", "modelVersion"),
    ("handler", "handler"),
    ("description", "description"),
    ("serialized_file", "serializedFile"),
    ("model_file", "modelFile"),
    ("requirements_file", "requirementsFile"),
    ("config_file", "configFile"),
    ("envelope", "envelope"),
)
_MMS_EXTENSION_KEYS = (("symbol_file", "symbolFile"), ("parameters_file", "parametersFile"))
_LEGACY_KEYS = (
    ("model_name", "Model-Name"),
    ("handler", "Service"),
    ("description", "Description"),
    ("symbol_file", "Symbol"),
    ("parameters_file", "Parameters"),
    ("signature_file", "Signature"),
)
_TORCHSERVE_MARKS = ("createdOn", "archiverVersion")
_TORCHSERVE_MODEL_MARKS = ("serializedFile", "modelFile", "requirementsFile", "configFile", "envelope")
_MMS_MARKS = ("modelServerVersion", "specificationVersion", "implementationVersion", "engine")


@dataclass(frozen=True)
class Manifest:
    """One manifest. Text that it does not give is empty, except for what has a default.

    Attributes:
        family: ``torchserve``, ``mms`` (1.x), ``mms0`` (0.x) or ``none`` (the archive has no manifest).
        model_name: empty when the manifest names none; whoever registers it then gives the name.
        version: default ``1.0``; ``snapshot`` for 0.x, as Multi Model Server shows it.
        handler: as written: a file, ``file:function``, a module or a built-in name.
        runtime: as written; default ``python``.
        engine: name and version of the framework, as far as the manifest tells.
        raw: the manifest as it was read; handlers see this one.
    """

    family: str = "none"
    model_name: str = ""
    version: str = "1.0"
    handler: str = ""
    runtime: str = "python"
    description: str = ""
    serialized_file: str = ""
    model_file: str = ""
    requirements_file: str = ""
    config_file: str = ""
    envelope: str = ""
    symbol_file: str = ""
    parameters_file: str = ""
    signature_file: str = "signature.json"
    engine: Mapping[str, object] = field(default_factory=dict)
    raw: Mapping[str, object] = field(default_factory=dict)

    @staticmethod
    def parse(raw: object) -> Manifest:
        """Make a manifest of its JSON value; unknown keys are kept in ``raw`` and otherwise ignored.

        Raises:
            ManifestError: not an object, or a known key holds what cannot be meant.
        """
        if not isinstance(raw, dict):
            raise ManifestError("The manifest is not a JSON object.", "Pack the archive again.")
        if not raw:
            return Manifest()
        if "Model" in raw and "model" not in raw:
            return _parse_legacy(raw)
        return _parse_current(raw)

    @property
    def engine_name(self) -> str:
        """Name of the framework, "" for none; a 0.x archive counts when its version is a number."""
        if self.family == "mms0":
            return "MXNet" if isinstance(self.engine.get("MXNet"), (int, float)) else ""
        return str(self.engine.get("engineName") or "")

    @property
    def names_version(self) -> bool:
        """Whether the archive says its version; a 0.x archive counts as if it did, as in Multi Model Server."""
        model = self.raw.get("model")
        return self.family == "mms0" or (isinstance(model, dict) and model.get("modelVersion") is not None)

    def named_files(self) -> List[Tuple[str, str]]:
        """Return ``(manifest key, file name)`` of the files that a worker or the server will open.

        The 0.x files are left out: their services open what they like, and many name files that never existed.
        """
        if self.family == "mms0":
            return []
        wanted = ("serialized_file", "model_file", "requirements_file", "config_file")
        return [(key, getattr(self, name)) for name, key in _MODEL_KEYS if name in wanted and getattr(self, name)]


def _parse_current(raw: Dict[str, object]) -> Manifest:
    """Read the form with ``model``; older TorchServe and all 1.x MMS archives share it."""
    model = _section(raw, "model")
    found = _texts(model, _MODEL_KEYS, "model.")
    found.update(_texts(_section(model, "extensions"), _MMS_EXTENSION_KEYS, "model.extensions."))
    found.update(_texts(raw, (("runtime", "runtime"),), ""))
    if "envelope" not in found:
        found.update(_texts(raw, (("envelope", "envelope"),), ""))
    return Manifest(family=_family(raw, model), engine=_section(raw, "engine"), raw=raw, **found)


def _parse_legacy(raw: Dict[str, object]) -> Manifest:
    """Read the 0.x form. ``Service`` is required, as Multi Model Server's migration does."""
    found = _texts(_section(raw, "Model"), _LEGACY_KEYS, "Model.")
    if "handler" not in found:
        raise ManifestError(
            "The 0.x manifest does not name its Service.", "Add Model.Service, the file with the service class."
        )
    return Manifest(family="mms0", version="snapshot", engine=_section(raw, "Engine"), raw=raw, **found)


def _family(raw: Dict[str, object], model: Dict[str, object]) -> str:
    """Tell the families apart; a hand-written manifest without marks is TorchServe's, the wider of the two."""
    if any(key in raw for key in _TORCHSERVE_MARKS) or any(key in model for key in _TORCHSERVE_MODEL_MARKS):
        return "torchserve"
    return "mms" if any(key in raw for key in _MMS_MARKS) else "torchserve"


def _section(parent: Mapping[str, object], key: str) -> Dict[str, object]:
    section = parent.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ManifestError(f"{key} in the manifest is not a JSON object.", "Pack the archive again.")
    return section


def _texts(section: Mapping[str, object], keys: Tuple[Tuple[str, str], ...], where: str) -> Dict[str, str]:
    """Return the attributes that the section gives. A number counts as text: versions were written so."""
    found = {}
    for attribute, key in keys:
        value = section.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ManifestError(f"{where}{key} in the manifest is not a text: {value!r}.", "Correct the manifest.")
        found[attribute] = str(value)
    return found


def manifest_root(folder: Path) -> Path:
    """Return the folder that holds the manifest: ``folder``, its one sub-folder that does, or ``folder``.

    0.1 archives, and those that somebody zipped with the folder around them, have all one level down.
    """
    if _manifest_file(folder) is not None:
        return folder
    below = [child for child in _folders(folder) if _manifest_file(child) is not None]
    return below[0] if len(below) == 1 else folder


def read_manifest(folder: Path, must_be_whole: bool = True) -> Manifest:
    """Return the manifest of an unpacked archive; an empty one when there is none.

    Args:
        must_be_whole: the files that the manifest names must be there.

    Raises:
        ManifestError: it is no JSON, no manifest, or names a file that is not there, or lies elsewhere.
    """
    root = manifest_root(folder)
    path = _manifest_file(root)
    if path is None:
        return Manifest()
    manifest = Manifest.parse(load_json(path))
    for key, name in manifest.named_files():
        if not _is_inside(name) or (must_be_whole and not (root / name).exists()):
            raise ManifestError(
                f"The manifest names {name!r} as {key}, and the archive has no such file.",
                "Pack the archive again with that file, or take the name out of the manifest.",
            )
    return manifest


def check_as_mms(manifest: Manifest) -> None:
    """Refuse what Multi Model Server does of a manifest that can be read.

    Raises:
        ManifestError: in its words.
    """
    if manifest.runtime not in MMS_RUNTIMES:
        raise ManifestError("Runtime is not defined or invalid.", f"It must be one of {', '.join(MMS_RUNTIMES)}.")
    if manifest.raw.get("engine") is not None and not manifest.engine_name:
        raise ManifestError("engineName is required in <engine>.", "Name it, or take engine out of the manifest.")


def file_model_name(location: str) -> str:
    """Return the name that TorchServe gives a model whose archive does not say it: made of the file's."""
    name = location.rsplit("/", 1)[-1]
    if ".mar" in name or ".model" in name:
        name = name.rsplit(".", 1)[0]
    return re.sub(r"\W|^_", "_", name)


def load_json(path: Path) -> object:
    """Read a JSON file of an archive.

    Raises:
        ManifestError: the file cannot be read, or is no JSON.
    """
    try:
        # utf-8-sig: editors on Windows left a byte order mark in many of the old manifests.
        value: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path.name} cannot be read as JSON: {error}.", "Pack the archive again.") from error
    return value


def _manifest_file(folder: Path) -> Path | None:
    for name in (MANIFEST_NAME, LEGACY_MANIFEST_NAME):
        if (folder / name).is_file():
            return folder / name
    return None


def _folders(folder: Path) -> List[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []


def _is_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def split_handler(handler: str) -> Tuple[str, str]:
    """Split ``file.py:function`` into file and function; the function is empty when none is named."""
    module, colon, function = handler.rpartition(":")
    if not colon or not module or not re.match(r"^[A-Za-z_][A-Za-z0-9_.]*$", function):
        return handler, ""
    return module, function


def is_built_in(handler: str, runtime: str = "python") -> bool:
    """Tell whether a handler is part of the server: an archive that names it carries no file of that name."""
    if runtime == "LSP":
        return handler in BUILT_IN_LSP_HANDLERS
    return handler in BUILT_IN_HANDLERS or handler in LIBRARY_HANDLERS or handler.startswith("marserve.")


def handler_files(handler: str) -> List[str]:
    """Return where in an archive the file of a handler may lie, most likely first."""
    module, _ = split_handler(handler)
    name = module if module.endswith(".py") else module + ".py"
    dotted = module.replace(".", "/") + ".py"
    found = []
    # Old archivers dropped leading folders when they copied; old loaders drop them when they look.
    for candidate in (name, name.rsplit("/", 1)[-1], dotted, module + "/__init__.py"):
        if candidate not in found:
            found.append(candidate)
    return found
