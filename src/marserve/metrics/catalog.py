"""Every metric of the server, one row each: the collector, the metrics address and the docs page come from here."""

from __future__ import annotations

from dataclasses import dataclass

from marserve.wire.frames import SPANS

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

#: Upper bounds of all histograms of time, seconds: fine where a fast model lives, up to the default timeouts.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
#: Upper bounds of the histogram of batches.
JOBS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
#: Upper bounds of a service's own histograms, whose unit is the author's choice.
ANY = tuple(lead * 10.0**power for power in range(-3, 6) for lead in (1.0, 2.5, 5.0))

#: What a batch goes through after it has left the queue: the wire in both directions, then the worker's spans.
STEPS = ("wire", *SPANS)

_OF_VERSION = ("model", "version")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric.

    Attributes:
        name: as it is exposed; a histogram's samples add ``_bucket``, ``_sum`` and ``_count``.
        kind: counter, gauge or histogram.
        unit: of its values: seconds, bytes, or what is counted.
        labels: names of its labels, in order.
        meaning: what it tells, for the docs page and the ``HELP`` line.
        bounds: of a histogram, the upper bounds of its buckets.
    """

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()


_ROWS = (
    MetricRow(
        "marserve_requests_total",
        COUNTER,
        "requests",
        (*_OF_VERSION, "code"),
        "Requests that a model version accepted and that have ended, by status of the answer; "
        "499: the client had gone before there was one.",
    ),
    MetricRow(
        "marserve_errors_total",
        COUNTER,
        "requests",
        (*_OF_VERSION, "kind"),
        "Requests for a model version that ended with an error, by kind of the error; "
        "also those that it refused at once.",
    ),
    MetricRow(
        "marserve_request_bytes_total", COUNTER, "bytes", _OF_VERSION, "Bytes of the bodies of the accepted requests."
    ),
    MetricRow(
        "marserve_request_seconds",
        HISTOGRAM,
        "seconds",
        _OF_VERSION,
        "From a request's arrival to its answer.",
        SECONDS,
    ),
    MetricRow(
        "marserve_queue_seconds",
        HISTOGRAM,
        "seconds",
        _OF_VERSION,
        "From a request's arrival to its leaving for a worker.",
        SECONDS,
    ),
    MetricRow(
        "marserve_batch_wait_seconds",
        HISTOGRAM,
        "seconds",
        _OF_VERSION,
        "The part of it before the newest request of the same batch had come.",
        SECONDS,
    ),
    MetricRow(
        "marserve_step_seconds",
        HISTOGRAM,
        "seconds",
        (*_OF_VERSION, "step"),
        f"What a batch spent in each step after the queue, counted once a batch: {', '.join(STEPS)}. "
        "wire is the way there and back, wait is behind other batches of the same worker; "
        "inference is also what a service's handle does outside of its three steps.",
        SECONDS,
    ),
    MetricRow("marserve_batch_size", HISTOGRAM, "requests", _OF_VERSION, "Requests that travelled together.", JOBS),
    MetricRow("marserve_queue_jobs", GAUGE, "requests", _OF_VERSION, "Requests that wait for a worker."),
    MetricRow("marserve_queue_limit_jobs", GAUGE, "requests", _OF_VERSION, "Most requests that may wait."),
    MetricRow("marserve_in_flight_batches", GAUGE, "batches", _OF_VERSION, "Batches in the hands of workers."),
    MetricRow(
        "marserve_workers",
        GAUGE,
        "workers",
        (*_OF_VERSION, "state"),
        "Worker processes by state: starting, loading, ready, stopping.",
    ),
    MetricRow("marserve_wanted_workers", GAUGE, "workers", _OF_VERSION, "Worker processes that there should be."),
    MetricRow(
        "marserve_worker_restarts_total",
        COUNTER,
        "workers",
        _OF_VERSION,
        "Workers that died and for which a new one was planned.",
    ),
    MetricRow(
        "marserve_http_requests_total",
        COUNTER,
        "requests",
        ("code",),
        "HTTP requests that became no prediction, by status of the answer: management, ping, metrics, "
        "predictions that were refused at once, and what is no good HTTP.",
    ),
    MetricRow(
        "marserve_service_reports_dropped_total",
        COUNTER,
        "reports",
        _OF_VERSION,
        "Values that a service reported and that are not exposed; the log says once why.",
    ),
    MetricRow("marserve_info", GAUGE, "1", ("version",), "Always 1; the label is the version of the server."),
)

#: The rows by name, in the order of the docs and of the metrics address.
CATALOG: dict[str, MetricRow] = {row.name: row for row in _ROWS}


def table() -> str:
    """Return the catalogue as the Markdown table of ``docs/metrics.md``."""
    lines = ["| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    for row in CATALOG.values():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {row.unit} | {labels} | {row.meaning} |")
    return "\n".join(lines) + "\n"
