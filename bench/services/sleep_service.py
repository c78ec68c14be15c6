"""The slow model: 20 ms a call, whatever the batch, and no work for the CPU."""

import time
from typing import Any

from marserve.service.base import Service

#: Seconds that a call takes.
CALL = 0.02


class SleepService(Service):
    """Answers each request with the number that it brings, later."""

    def inference(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        time.sleep(CALL)
        return data

    def postprocess(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"number": self.value(row, "number")} for row in data]
