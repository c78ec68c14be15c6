"""The service of an unpacked archive, for the servers that are told it in Python. No server's code in here.

A peer's program is told by its environment: ``BENCH_FOLDER`` the unpacked archive, ``BENCH_PORT``, ``BENCH_PATH`` the
path of predictions, ``BENCH_WORKERS``, ``BENCH_BATCH`` the largest batch, ``BENCH_JSON`` 1 where bodies are JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

PORT = int(os.environ.get("BENCH_PORT", "0"))
PATH = os.environ.get("BENCH_PATH", "/predict")
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
BATCH = int(os.environ.get("BENCH_BATCH", "1"))
IS_JSON = os.environ.get("BENCH_JSON", "1") == "1"

#: Longest wait for a batch to fill, seconds: that of a peer's own default, and no more than this.
LONGEST_WAIT = 0.01


def load_handle(folder: str) -> Callable[[Sequence[Any]], list[Any]]:
    """Return a function from request bodies (JSON values, or bytes) to as many answers."""
    with open(os.path.join(folder, "MAR-INF", "MANIFEST.json")) as file:
        handler = json.load(file)["model"]["handler"]
    sys.path.insert(0, folder)
    module = importlib.import_module(handler.removesuffix(".py"))
    (kind,) = (
        each
        for each in vars(module).values()
        if getattr(each, "__module__", "") == module.__name__ and isinstance(each, type)
    )
    context = SimpleNamespace(system_properties={"model_dir": folder, "gpu_id": None}, manifest={})
    service = kind()
    service.initialize(context)

    def handle(bodies: Sequence[Any]) -> list[Any]:
        result: list[Any] = service.handle([{"body": body} for body in bodies], context)
        return result

    return handle


def handle_from_environment() -> Callable[[Sequence[Any]], list[Any]]:
    """Return ``load_handle`` of the folder that the environment names."""
    return load_handle(os.environ["BENCH_FOLDER"])
