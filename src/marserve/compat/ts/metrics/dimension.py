"""A dimension of a metric: a name and a value."""

from __future__ import annotations

from typing import Dict


class Dimension:
    """A name and its value; the metrics of a service take lists of them."""

    def __init__(self, name: str, value: object) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> Dict[str, object]:
        """Return it under the names ``Name`` and ``Value``."""
        return {"Name": self.name, "Value": self.value}
