"""Metrics as lines of text, as programs print them for TorchServe to read.

Source: TorchServe 0.12, classes ``Metric`` and ``WorkerLifeCycle``: ``Name.Unit:value|#Dimension:value,…|#type:GAUGE|
#hostname:h,timestamp,request``, of which the type and what follows the timestamp may be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple

_LINE = re.compile(
    r"\s*([\w\s]+)\.([\w\s]+):([0-9\-,.e]+)\|#([^|]*)(?:\|#type:([^|,]+))?\|#hostname:([^,]+),[^,]+(?:,(.*))?",
    re.ASCII,
)
_PRINTED = re.compile(r"(?:INFO > )?\[METRICS\](.*)")

#: Takes a worker's name and a line that it has printed.
OnLine = Callable[[str, str], None]


class MetricLine(NamedTuple):
    """What a line says; ``kind`` and ``requests`` are "" where it does not name them."""

    name: str
    unit: str
    value: float
    dimensions: dict[str, str]
    kind: str
    host: str
    requests: str


class Printer(NamedTuple):
    """The model version whose service has printed a line."""

    name: str
    version: str


def parse_line(text: str) -> MetricLine | None:
    """Return what a line says, None for one that is no metric."""
    found = _LINE.fullmatch(text)
    if found is None:
        return None
    name, unit, written, dimensions, kind, host, requests = found.groups()
    try:
        value = float(written)
    except ValueError:
        return None
    pairs = (pair.partition(":") for pair in dimensions.split(",") if pair)
    labels = {key: label for key, _, label in pairs}
    return MetricLine(name, unit, value, labels, (kind or "").lower(), host, requests or "")


class PrintedMetrics:
    """Takes metrics out of what workers print.

    Args:
        report: takes a model version and a report as ``service/metrics.py`` drains it.
        on_line: takes every other line, and what only looks like a metric.
    """

    def __init__(self, report: Callable[[Printer, bytes], None], on_line: OnLine) -> None:
        self._report = report
        self._on_line = on_line

    def __call__(self, worker: str, line: str) -> None:
        """Take a line of a worker, whose name is such as ``m:1.0#9000``."""
        found = _PRINTED.fullmatch(line)
        metric = None if found is None else parse_line(found[1])
        if metric is None:
            self._on_line(worker, line)
            return
        model, _, version = worker.rpartition("#")[0].rpartition(":")
        told = {**metric._asdict(), "type": metric.kind}
        self._report(Printer(model, version), json.dumps(told).encode() + b"\n")
