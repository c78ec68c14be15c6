"""``BodyEnvelope``: the bodies alone, without the names that they come under."""

from __future__ import annotations

from typing import Any, List

from .base import BaseEnvelope, body_of


class BodyEnvelope(BaseEnvelope):
    """Gives the handler a list of bodies."""

    def parse_input(self, data: List[Any]) -> List[Any]:
        """Return the bodies."""
        return [body_of(row) for row in data]

    def format_output(self, data: Any) -> Any:
        """Return the results as they are."""
        return data
