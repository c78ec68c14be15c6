"""Where marserve says that a request's time went: seconds and requests of each stage, from its own histograms."""

from __future__ import annotations

import re

_SAMPLE = re.compile(r"^marserve_(queue|step|request)_seconds_sum\{([^}]*)\} (\S+)$", re.MULTILINE)
_COUNT = re.compile(r"^marserve_request_seconds_count\{[^}]*\} (\S+)$", re.MULTILINE)
_STEP = re.compile(r'step="([^"]*)"')


def stage_seconds(metrics: str) -> dict[str, float]:
    """Return the seconds that all requests so far spent in each stage, ``whole`` among them, and their ``count``.

    Args:
        metrics: what the metrics address says, in Prometheus format.
    """
    found = {"count": sum(float(value) for value in _COUNT.findall(metrics))}
    for family, labels, value in _SAMPLE.findall(metrics):
        step = _STEP.search(labels)
        name = step[1] if step else {"request": "whole"}.get(family, family)
        found[name] = found.get(name, 0.0) + float(value)
    return found
