"""The command ``marserve`` with nobody watching: nothing is counted and no line is written about a request.

What metrics and access log cost together is the difference to this.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from marserve import server
from marserve.cli.main import main
from marserve.errors import ServeError
from marserve.metrics.collector import Collector


class Blind(Collector):
    """Is told everything and does nothing with it."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.jobs_ended = deque[object](maxlen=0).extend  # type: ignore[method-assign]  # keeps nothing

    def request_answered(
        self, client: object, method: str, target: str, status: int, seconds: float, error: ServeError | None = None
    ) -> None:
        """Do nothing."""


if __name__ == "__main__":
    server.Collector = Blind  # type: ignore[misc]
    sys.exit(main())
