"""What has been counted, as the text that Prometheus reads, in pieces that are made one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector as Source

import marserve
from marserve.metrics.catalog import CATALOG, COUNTER, HISTOGRAM, STEPS, MetricRow
from marserve.metrics.collector import Collector
from marserve.metrics.histogram import Histogram
from marserve.metrics.series import VersionSeries

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of a version that is served at the moment when somebody asks; the rest has been counted.

    Attributes:
        workers: by state.
    """

    model: str
    version: str
    queue_jobs: int
    queue_limit: int
    in_flight_batches: int
    workers: dict[str, int]
    wanted_workers: int
    worker_restarts: int


#: Values of one metric: those of its labels that come after model and version, and the value.
_Values = Iterable[tuple[tuple[str, ...], "float | Histogram"]]

#: How each metric is read of a version that is served.
_READ: dict[str, Callable[[Reading], _Values]] = {
    "marserve_queue_jobs": lambda reading: [((), reading.queue_jobs)],
    "marserve_queue_limit_jobs": lambda reading: [((), reading.queue_limit)],
    "marserve_in_flight_batches": lambda reading: [((), reading.in_flight_batches)],
    "marserve_workers": lambda reading: [((state,), count) for state, count in sorted(reading.workers.items())],
    "marserve_wanted_workers": lambda reading: [((), reading.wanted_workers)],
    "marserve_worker_restarts_total": lambda reading: [((), reading.worker_restarts)],
}

#: How each metric is taken from what was counted of a version.
_COUNTED: dict[str, Callable[[VersionSeries], _Values]] = {
    "marserve_requests_total": lambda series: [((str(code),), n) for code, n in sorted(series.codes.items())],
    "marserve_errors_total": lambda series: [((kind,), n) for kind, n in sorted(series.kinds.items())],
    "marserve_request_bytes_total": lambda series: [((), series.bytes)],
    "marserve_request_seconds": lambda series: [((), series.request)],
    "marserve_queue_seconds": lambda series: [((), series.queue)],
    "marserve_batch_wait_seconds": lambda series: [((), series.batch_wait)],
    "marserve_step_seconds": lambda series: [
        ((step,), found) for step, found in zip(STEPS, series.steps, strict=True)
    ],
    "marserve_batch_size": lambda series: [((), series.batch_size)],
    "marserve_service_reports_dropped_total": lambda series: [((), series.dropped_reports)],
}


def pieces(collector: Collector, readings: Sequence[Reading], names: Collection[str] = ()) -> Iterator[bytes]:
    """Yield the text, in pieces that take well under a millisecond each; the caller lets others in between.

    Args:
        names: of metrics or of their samples, the only ones to give; all when there is none. Where an old server's
            metrics take the place of ours, of samples alone, as there.
    """
    if collector.tally is not None and collector.tally.replaces_ours:
        yield from collector.tally.pieces(names)
        return
    for row in CATALOG.values():
        has_head = False
        for metric in _metrics(row, collector, readings):
            text = _render(metric, row.name, names)
            yield _without_head(text) if has_head else text
            has_head = has_head or bool(text)
    for metric in collector.service_families():
        yield _render(metric, metric.name, names)


def _metrics(row: MetricRow, collector: Collector, readings: Sequence[Reading]) -> Iterator[Metric]:
    """Yield one metric in parts: all versions together, or all steps of one, would take too long in one go."""
    if row.name == "marserve_info":
        yield _metric(row, (), [((marserve.__version__,), 1.0)])
    elif row.name == "marserve_http_requests_total":
        yield _metric(row, (), [((str(code),), count) for code, count in sorted(collector.http_codes.items())])
    elif row.name in _READ:
        for reading in readings:
            yield _metric(row, (reading.model, reading.version), _READ[row.name](reading))
    else:
        for key, series in list(collector.series.items()):
            for value in _COUNTED[row.name](series):
                yield _metric(row, key, [value])


def _metric(row: MetricRow, first: tuple[str, ...], values: _Values) -> Metric:
    if row.kind == HISTOGRAM:
        histogram = HistogramMetricFamily(row.name, row.meaning, labels=row.labels)
        for rest, value in values:
            assert isinstance(value, Histogram)
            histogram.add_metric((*first, *rest), *value.read())
        return histogram
    family = CounterMetricFamily if row.kind == COUNTER else GaugeMetricFamily
    metric = family(row.name, row.meaning, labels=row.labels)
    for rest, value in values:
        assert not isinstance(value, Histogram)
        metric.add_metric((*first, *rest), value)
    return metric


class _One(Source):
    """The form in which the library takes one metric to render."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


def _render(metric: Metric, name: str, names: Collection[str]) -> bytes:
    if names and name not in names:
        metric.samples = [sample for sample in metric.samples if sample.name in names]
    return generate_latest(_One(metric)) if metric.samples else b""


def _without_head(text: bytes) -> bytes:
    """Return a later part of a metric without the HELP and TYPE lines, which may stand there once."""
    return text.split(b"\n", 2)[2] if text else b""
