"""Where values of the server's own metrics go in an old server's dialect: a label set each, found once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from marserve.metrics.definitions import Definition
from marserve.metrics.simpleclient import Family, Labels


class Place:
    """One label set of a metric of the server, with where its values go.

    Attributes:
        is_logged: whether values become lines.
        head, tail: of such a line, before and after the value; the tail lacks the timestamp.
    """

    __slots__ = ("_family", "_labels", "_owner", "head", "is_logged", "tail")

    def __init__(self, definition: Definition, labels: Labels, host: str, family: Family | None, owner: str) -> None:
        self.is_logged = family is None
        named = zip(definition.dimensions, labels, strict=True)
        shown = ",".join(f"{name}:{label}" for name, label in named if name.lower() != "hostname")
        self.head = f"{definition.name}.{definition.unit}:"
        self.tail = f"|#{shown}|#hostname:{host},timestamp:"
        self._family, self._labels, self._owner = family, labels, owner

    def add(self, values: Sequence[float]) -> None:
        """Count values, where they are exposed."""
        if self._family is not None and values:
            self._family.add(self._labels, values, self._owner)

    def forget(self) -> None:
        """Expose the label set no more."""
        if self._family is not None:
            self._family.forget(self._labels)


class Asked(NamedTuple):
    """The places of the requests for a model that asked for its version in the same way; None: not defined."""

    requests: Place | None
    latency: Place | None
    queue_latency: Place | None
