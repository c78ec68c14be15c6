"""What JSON in the settings tells of model versions: ``models`` their parameters, ``model_snapshot`` what to load.

::

    models=         {"m": {"1.0": {"minWorkers": 1, "batchSize": 8, "maxBatchDelay": 50}}}
    model_snapshot= {"name": …, "modelCount": 1, "created": …, "models": {"m": {"1.0": {"defaultVersion": true,
                    "marName": "m.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100}}}}

Outside, ``maxBatchDelay`` is milliseconds and the timeouts are seconds; inside, all are seconds. Source: TorchServe's
``ConfigManager.java`` and ``Model.java``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import yaml

from marserve.config.kinds import Kind, Notation


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """What is told of one version of a model; None or "": nothing.

    Attributes:
        archive: where it is loaded from: a name in the model store, or a URL.
        max_batch_delay, response_timeout, startup_timeout: seconds.
        handler: entry point, where it is another than the archive's.
        unknown: members that mean nothing here.
    """

    model: str
    version: str
    is_default: bool = False
    archive: str = ""
    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay: float | None = None
    response_timeout: float | None = None
    startup_timeout: float | None = None
    runtime: str = ""
    handler: str = ""
    unknown: tuple[str, ...] = ()


def entry_of(entries: Iterable[VersionEntry], model: str, version: str) -> VersionEntry | None:
    """Return what is told of a version, None where nothing is."""
    return next((entry for entry in entries if (entry.model, entry.version) == (model, version)), None)


# --- members -------------------------------------------------------------------------------------------


class _Member(NamedTuple):
    """A member of the JSON: its attribute, how it is read, and what one of its units is of ours."""

    attribute: str
    read: Callable[[object], object]
    unit: float = 1


def _whole(value: object) -> int:
    found = None if isinstance(value, bool) else re.fullmatch(r"(-?\d{1,9})(\.0+)?", str(value))
    if not found:  # TorchServe reads "2" and 2.0 too
        raise ValueError("is no whole number")
    return int(found[1])


def _number(value: object) -> float:
    if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,9}(\.\d+)?", str(value)):
        raise ValueError("is no number")
    return float(str(value))


def _flag(value: object) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return str(value).lower() == "true"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _runtime(value: object) -> str:
    if value not in ("python", "python2", "python3", "LSP"):
        raise ValueError("is none of python, python2, python3, LSP")
    return str(value)


_MEMBERS = {
    "defaultVersion": _Member("is_default", _flag),
    "marName": _Member("archive", _text),
    "minWorkers": _Member("min_workers", _whole),
    "maxWorkers": _Member("max_workers", _whole),
    "batchSize": _Member("batch_size", _whole),
    "maxBatchDelay": _Member("max_batch_delay", _number, 0.001),
    "responseTimeout": _Member("response_timeout", _number),
    "startupTimeout": _Member("startup_timeout", _number),
    "runtimeType": _Member("runtime", _runtime),
    "handler": _Member("handler", _text),
}
#: Members that TorchServe writes and that tell a reader, not a server.
_INFORMATIONAL = ("parallelLevel",)
#: Of these a snapshot's 0 was chosen; any other 0 stands for the default, as all that is less.
_MAY_BE_NONE = ("minWorkers", "maxWorkers", "maxBatchDelay")
#: What a snapshot without would not be whole.
_REQUIRED = ("defaultVersion", "marName", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")


# --- text to value -------------------------------------------------------------------------------------


def _read_models(text: str, _: Notation) -> tuple[VersionEntry, ...]:
    return tuple(_entries(_json(text))) if text else ()


def _read_snapshot(text: str, _: Notation) -> tuple[VersionEntry, ...] | None:
    if not text:
        return None
    snapshot = _json(text)
    models = snapshot.get("models") if isinstance(snapshot, dict) else snapshot
    # TorchServe's own is without models where there is none to load.
    return tuple(_entries({} if models is None else models, is_snapshot=True))


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        value = _loose(text)
        if value is None:
            raise ValueError(f"is no JSON: {error}") from None
    return value


def _loose(text: str) -> dict[str, object] | None:
    """Return the object of what is nearly JSON, its values as texts; None where it is none.

    Single quotes and keys without quotes are good enough for TorchServe; YAML has them too.
    """
    try:
        value = yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    return value if text.lstrip().startswith("{") and isinstance(value, dict) else None


def _entries(models: object, is_snapshot: bool = False) -> Iterator[VersionEntry]:
    for model, versions in _members(models, "it"):
        for version, told in _members(versions, model):
            yield _entry(model, version, dict(_members(told, f"{model} {version}")), is_snapshot)


def _members(value: object, what: str) -> Iterable[tuple[str, object]]:
    if not isinstance(value, dict):
        raise ValueError(f"has a value for {what} that is no JSON object" if what != "it" else "is no JSON object")
    return value.items()


def _entry(model: str, version: str, told: dict[str, object], is_snapshot: bool) -> VersionEntry:
    missing = [name for name in _REQUIRED if told.get(name) is None]
    if is_snapshot and missing:
        raise ValueError(f"has no {' and no '.join(missing)} for {model} {version}")
    values = {}
    for name, value in told.items():
        member = _MEMBERS.get(name)
        if member is None or value is None:
            continue
        try:
            read = member.read(value)
        except ValueError as error:
            shown = json.dumps(value)
            raise ValueError(f"has for {model} {version} the {name} {shown}, which {error}") from None
        if isinstance(read, (int, float)) and not isinstance(read, bool):
            if read < 0 or (not read and not (is_snapshot and name in _MAY_BE_NONE)):
                continue
            read *= member.unit
        values[member.attribute] = read
    unknown = tuple(name for name in told if name not in _MEMBERS and name not in _INFORMATIONAL)
    return VersionEntry(model, version, unknown=unknown, **values)  # type: ignore[arg-type]


# --- value to text -------------------------------------------------------------------------------------


def models_value(entries: Iterable[VersionEntry]) -> dict[str, dict[str, dict[str, object]]]:
    """Return the JSON value of ``models``, which ``model_snapshot`` has as a member."""
    models: dict[str, dict[str, dict[str, object]]] = {}
    for entry in entries:
        models.setdefault(entry.model, {})[entry.version] = dict(_told(entry))
    return models


def _told(entry: VersionEntry) -> Iterator[tuple[str, object]]:
    for name, (attribute, _, unit) in _MEMBERS.items():
        value = getattr(entry, attribute)
        if value is None or value == "":
            continue
        if isinstance(value, float):
            value = round(value / unit, 6)
            value = int(value) if value == int(value) else value  # TorchServe takes whole numbers alone
        yield name, value
    yield from ((name, None) for name in entry.unknown)


def _show_models(entries: Sequence[VersionEntry]) -> str:
    return json.dumps(models_value(entries)) if entries else ""


def _show_snapshot(entries: Sequence[VersionEntry] | None) -> str:
    return "" if entries is None else json.dumps({"models": models_value(entries)})


#: Parameters of versions; they say nothing of what is loaded.
PARAMETERS: Kind[tuple[VersionEntry, ...]] = Kind("JSON", _read_models, _show_models)
#: What to load; None for what other settings say.
SNAPSHOT: Kind[tuple[VersionEntry, ...] | None] = Kind("JSON", _read_snapshot, _show_snapshot)
