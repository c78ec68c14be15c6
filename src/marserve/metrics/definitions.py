"""Reads definitions of metrics in the form of TorchServe's ``metrics.yaml``.

Source: TorchServe's ``metrics_config``; a list of dimensions for YAML's anchors, and below ``ts_metrics`` and
``model_metrics`` lists of ``{name, unit, dimensions}`` by kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from marserve.errors import ConfigError
from marserve.metrics.catalog import COUNTER, GAUGE, HISTOGRAM

#: The definitions that count when no file is named, by dialect.
SHIPPED = {
    "torchserve": Path(__file__).with_name("torchserve.yaml"),
    "mms": Path(__file__).with_name("mms.yaml"),
}
_KINDS = (COUNTER, GAUGE, HISTOGRAM)
_ADVICE = "Each metric is {name, unit, dimensions}, in a list under counter, gauge or histogram."


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: as it is exposed and logged.
        kind: counter, gauge or histogram.
        unit: as it is shown.
        dimensions: names of its labels, in order.
    """

    name: str
    kind: str
    unit: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a file defines, by name: metrics of the server, and those that services report."""

    of_server: Mapping[str, Definition]
    of_models: Mapping[str, Definition]

    def rows_of_models(self) -> list[list[object]]:
        """Return the metrics of services as workers are told them: lists of kind, name, unit, dimensions."""
        return [[one.kind, one.name, one.unit, list(one.dimensions)] for one in self.of_models.values()]


def read_definitions(path: Path) -> Definitions:
    """Return what a file defines.

    Raises:
        ConfigError: the file cannot be read, or says something else; names the place.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The metrics_config {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The metrics_config {path} is no YAML: {error}.") from None
    try:
        sections = _mapping(found, "the file")
        of_server, of_models = (_section(sections.get(name), name) for name in ("ts_metrics", "model_metrics"))
    except ValueError as error:
        raise ConfigError(f"The metrics_config {path} defines no metrics: {error}.", _ADVICE) from None
    return Definitions(of_server, of_models)


def _section(found: object, place: str) -> dict[str, Definition]:
    defined: dict[str, Definition] = {}
    for definition in _definitions(_mapping(found or {}, place), place):
        if definition.name in defined:
            raise ValueError(f"{place} has {definition.name} twice")
        defined[definition.name] = definition
    return defined


def _definitions(section: Mapping[str, object], place: str) -> Iterator[Definition]:
    for kind, rows in section.items():
        if kind not in _KINDS:
            raise ValueError(f"{place} has the kind {kind}, which is none of {', '.join(_KINDS)}")
        if rows is not None and not isinstance(rows, list):
            raise ValueError(f"{place}.{kind} is no list")
        for number, row in enumerate(rows or (), 1):
            yield _definition(_mapping(row, f"{place}.{kind}, entry {number},"), kind, f"{place}.{kind}")


def _definition(row: Mapping[str, object], kind: str, place: str) -> Definition:
    name, unit, dimensions = row.get("name"), row.get("unit"), row.get("dimensions") or ()
    if not name or not isinstance(name, str):
        raise ValueError(f"an entry of {place} has no name")
    if unit is None or not isinstance(dimensions, (list, tuple)):
        raise ValueError(f"{place}.{name} has no {'unit' if unit is None else 'list of dimensions'}")
    return Definition(name, kind, str(unit), tuple(map(str, dimensions)))


def _mapping(found: object, place: str) -> Mapping[str, object]:
    if not isinstance(found, dict):
        raise ValueError(f"{place} is no mapping")
    return found
