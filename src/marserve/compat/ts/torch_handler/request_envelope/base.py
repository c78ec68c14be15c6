"""``BaseEnvelope``: an orchestrator's wrapping, taken off before a handler runs and put on its results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import islice
from typing import Any, Callable, Iterable, List


class BaseEnvelope(ABC):
    """Stands around an entry point.

    Args:
        handle_fn: the entry point.

    Attributes:
        context: that of the running batch.
    """

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle_fn = handle_fn
        self.context: Any = None

    def handle(self, data: Any, context: Any) -> Any:
        """Handle a batch without its wrapping; nothing in and nothing out are passed on as they are."""
        self.context = context
        results = self._handle_fn(self.parse_input(data) if data else data, context)
        return self.format_output(results) if results else results

    @abstractmethod
    def parse_input(self, data: Any) -> Any:
        """Return the handler's rows for those of the batch."""

    @abstractmethod
    def format_output(self, data: Any) -> Any:
        """Return one answer a request for the handler's results."""


def body_of(row: Any) -> Any:
    """Return what a row carries under ``data`` or ``body``."""
    return row.get("data") or row.get("body")


def dealt(results: List[Any], counts: Iterable[int]) -> List[List[Any]]:
    """Return results in lists of these lengths; a single list gets all, however many there are."""
    lengths = list(counts)
    if len(lengths) == 1:
        return [results]
    left = iter(results)
    return [list(islice(left, length)) for length in lengths]
