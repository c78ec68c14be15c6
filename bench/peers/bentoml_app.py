"""BentoML: a service class whose batches are lists; a request is a list of one."""

from __future__ import annotations

from typing import Any

import bentoml

from bench.peers.service import BATCH, PATH, WORKERS, handle_from_environment

#: Its dispatcher learns by itself how long a batch may wait.
BATCHING: dict[str, Any] = {"batchable": True, "max_batch_size": BATCH} if BATCH > 1 else {}


@bentoml.service(workers=WORKERS, traffic={"timeout": 60, "max_concurrency": 2000}, metrics={"enabled": False})
class Answering:
    def __init__(self) -> None:
        self.handle = handle_from_environment()

    @bentoml.api(route=PATH, **BATCHING)
    def predict(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.handle(items)
