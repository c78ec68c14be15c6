"""``KServeEnvelope``: version 1 of KServe's protocol."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from .base import BaseEnvelope, body_of, dealt


class KServeEnvelope(BaseEnvelope):
    """Gives the handler the instances of all requests, and each request its predictions or explanations."""

    def __init__(self, handle_fn: Any) -> None:
        super().__init__(handle_fn)
        self._lengths: List[int] = []

    def parse_input(self, data: List[Any]) -> List[Any]:
        """Return the instances as they are."""
        opened = []
        for row in data:
            body = body_of(row)
            if isinstance(body, (bytes, bytearray)):
                body = json.loads(body)
            opened.append(body["instances"])
        self._lengths = [len(instances) for instances in opened]
        return [instance for instances in opened for instance in instances]

    def format_output(self, data: List[Any]) -> List[Dict[str, Any]]:
        """Return an answer for each request."""
        name = "explanations" if self._is_explain() else "predictions"
        return [{name: results} for results in dealt(data, self._lengths)]

    def _is_explain(self) -> bool:
        return bool(self.context) and self.context.get_request_header(0, "explain") == "True"
