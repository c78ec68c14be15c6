"""The service of an unpacked archive, called in this process with nothing around it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marserve.archive.manifest import read_manifest
from marserve.service.context import Context, RequestInfo
from marserve.service.inputs import Row
from marserve.worker.loader import load_entry, stand_in
from marserve.worker.steps import NoSteps

#: Names the unpacked archive for floors that another program imports.
FOLDER_VARIABLE = "BENCH_FOLDER"

Predict = Callable[[Any], Any]


def load_predict(folder: Path) -> Predict:
    """Return a function from a request's parsed JSON to the answer, of the service in ``folder``.

    Raises:
        ServeError: the service cannot be loaded.
    """
    manifest = read_manifest(folder)
    context = Context(manifest.model_name, str(folder), manifest.raw, thread_count=1)
    stand_in(folder)
    entry = load_entry(folder, manifest, "", context, NoSteps())
    for step in ("preprocess", "inference", "postprocess"):
        # The loader puts a clock around each: somebody who calls a service himself has none.
        vars(entry.service).pop(step, None)
    context.begin([RequestInfo("bench")])
    check, handle = entry.check, entry.handle

    def predict(value: Any) -> Any:
        row = Row(body=value)
        if check is not None:
            check(row)
        result: Any = handle([row], context)
        return result[0]

    return predict


def predict_from_environment() -> Predict:
    """Return ``load_predict`` of the folder that the environment names."""
    return load_predict(Path(os.environ[FOLDER_VARIABLE]))
