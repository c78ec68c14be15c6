"""Counts as the two old servers did, under their names: on the metrics address, or as lines of their log files.

Like everything that is counted, jobs come many at a time, after their answers (``metrics/collector.py``).
Source: TorchServe 0.12 with its three metrics modes; Multi Model Server 1.1 is its mode ``log`` with fewer metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from time import time
from typing import Final, Protocol

from marserve import logs
from marserve.batching.job import Job, JobKind
from marserve.errors import BusyError, ServeError
from marserve.metrics.definitions import Definition, Definitions
from marserve.metrics.lines import MetricLine
from marserve.metrics.places import Asked, Place
from marserve.metrics.reported import ReportedMetrics, ReportPlace
from marserve.metrics.service import MOST_METRICS
from marserve.metrics.simpleclient import Family, java_double
from marserve.metrics.system import HostValue

log = logging.getLogger("marserve.metrics")
server_log = logging.getLogger(logs.SERVER_METRICS)
model_log = logging.getLogger(logs.MODEL_METRICS)

LOG, PROMETHEUS, LEGACY = "log", "prometheus", "legacy"
#: What the mode ``legacy`` exposes; it logs the rest.
LEGACY_NAMES: Final = (
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
)
REQUESTS, LATENCY, QUEUE_LATENCY = LEGACY_NAMES
#: Metrics by the first digit of a status; whatever is neither 2xx nor 4xx counts as the last.
STATUS_NAMES = {2: "Requests2XX", 4: "Requests4XX", 5: "Requests5XX"}
#: Version of a request that named none.
NO_VERSION = "default"
#: As a plain number, which compares faster.
_DESCRIBE = int(JobKind.DESCRIBE)


class Answered(Protocol):
    """What is read of a request that became no job."""

    @property
    def target(self) -> str:
        """Path and query as they were sent."""

    @property
    def status(self) -> int:
        """Status of its answer."""

    @property
    def error(self) -> ServeError | None:
        """What it was refused for, where it was."""


class Tally:
    """What an old server counts.

    Args:
        definitions: the metrics that there are.
        mode: log, prometheus or legacy.
        takes_all: whether what services report is taken though it is not declared.
        host: the name of this machine.
        id_prefix: what the ids of requests begin with.
        number: how a line shows a number; as Java does unless told otherwise.
        replaces_ours: whether the metrics address has these metrics in the place of our own.
    """

    def __init__(
        self,
        definitions: Definitions,
        mode: str,
        *,
        takes_all: bool,
        host: str,
        id_prefix: str,
        number: Callable[[float], str] = java_double,
        replaces_ours: bool = True,
    ) -> None:
        self.replaces_ours = replaces_ours
        self._definitions = definitions.of_server
        self._host = host
        self._id_prefix = id_prefix
        self._number = number
        exposed = {LOG: (), LEGACY: LEGACY_NAMES}.get(mode, tuple(self._definitions))
        self._families = {name: Family(self._definitions[name]) for name in exposed if name in self._definitions}
        self._reported = ReportedMetrics(definitions.of_models, takes_all, host, mode == PROMETHEUS, number)
        # Places, found once
        self._by_status = {digit: self._place(name) for digit, name in STATUS_NAMES.items()}
        self._queue_time = self._place("QueueTime")
        self._thread_time = self._place("WorkerThreadTime")
        self._asked: dict[tuple[str, str], Asked] = {}
        self._templates: dict[tuple[str, str], Callable[..., str]] = {}
        self._predictions: dict[str, ReportPlace | None] = {}
        # What changes
        self._last_spans: object = None
        self._timestamp = 0
        self._loaded: dict[object, Place] = {}
        self._told: set[str] = set()
        self._lines: list[str] = []
        self._model_lines: list[str] = []

    # What it hears

    def take(
        self, jobs: Sequence[Job], answered: Sequence[Answered], reports: Sequence[tuple[str, str, bytes]]
    ) -> None:
        """Count jobs and other requests that have their answers, and what services have reported."""
        self._begin()
        by_asked: dict[tuple[object, str], list[Job]] = {}
        for job in jobs:
            # A description of a model is part of a request of the management address, which is counted there.
            if job.kind != _DESCRIBE:
                key = (job.model_version, job.asked_version)
                if key in by_asked:
                    by_asked[key].append(job)
                else:
                    by_asked[key] = [job]
        for (version, asked), its_jobs in by_asked.items():
            self._take_jobs(version.name, asked or NO_VERSION, its_jobs)  # type: ignore[attr-defined]
        self._take_batches(jobs)
        for one in answered:
            self._take_status(one.status, 1)
            if isinstance(one.error, BusyError) and one.error.model is not None:
                self._add(self._places_of(one.error.model, _asked_in(one)).requests, (1.0,))
        for model, _, report in reports:
            self._model_lines += self._reported.take(model, report, self._timestamp)
        self._write()

    def worker_loaded(self, worker: object, model: str, name: str, seconds: float) -> None:
        """Count how long a worker took to load; ``name`` is its own, such as ``W-9000-m_1.0``."""
        self._begin()
        place = self._place("WorkerLoadTime", owner=model, WorkerName=name)
        if place is not None:
            self._loaded[worker] = place
            self._add(place, (float(round(seconds * 1000.0)),))
        self._write()

    def worker_gone(self, worker: object) -> None:
        """Expose a worker no more that has ended; the one that takes its number is told of anew."""
        place = self._loaded.pop(worker, None)
        if place is not None:
            place.forget()

    def host_read(self, values: Iterable[HostValue]) -> None:
        """Count what the host is doing."""
        self._begin()
        for name, value, device in values:
            self._add(self._place(name, DeviceId=device), (value,))
        self._write()

    def host_told(self, lines: Iterable[MetricLine]) -> None:
        """Count what a command tells of the host: the labels by position, the host's name last."""
        self._begin()
        for line in lines:
            definition = self._definitions.get(line.name)
            labels = (*line.dimensions.values(), line.host)
            if definition is None or len(labels) != len(definition.dimensions):
                self._tell(f"The system_metrics_cmd prints {line.name} with {len(labels) - 1} dimensions", definition)
                continue
            self._add(Place(definition, labels, line.host, self._families.get(line.name), ""), (line.value,))
        self._write()

    # Counting

    def _take_jobs(self, model: str, asked: str, jobs: Sequence[Job]) -> None:
        """Count jobs of one model whose requests named its version in the same way."""
        places = self._places_of(model, asked)
        good = [job for job in jobs if 200 <= job.status < 300]
        if good:
            self._take_good(model, asked, places, good)
        if len(good) < len(jobs):
            others = [job for job in jobs if not 200 <= job.status < 300]
            self._add(places.requests, [1.0] * len(others))
            for job in others:
                if job.status:  # without one, the client had gone before there was an answer
                    self._take_status(job.status, 1)
                    if job.error is None:  # its service has answered, and chosen the status
                        self._take_times(places, job)

    def _take_good(self, model: str, asked: str, places: Asked, jobs: Sequence[Job]) -> None:
        ones = [1.0] * len(jobs)
        latencies = [(job.done - job.arrived) * 1e6 for job in jobs]
        queued = [(job.sent - job.arrived) * 1e6 for job in jobs]
        milliseconds = [int(span * 1e-3) for span in queued]
        counted: tuple[tuple[Place | None, Sequence[float]], ...] = (
            (places.requests, ones),
            (places.latency, latencies),
            (places.queue_latency, queued),
            (self._by_status[2], ones),
            (self._queue_time, milliseconds),
        )
        for place, values in counted:
            if place is not None and not place.is_logged:
                place.add(values)
        template = self._templates.get((model, asked))
        if template is None:
            template = self._templates[model, asked] = self._template(places)
        if template is not _NO_LINES:
            self._lines += map(template, latencies, queued, milliseconds)

    def _take_times(self, places: Asked, job: Job) -> None:
        queued = (job.sent - job.arrived) * 1e6
        self._add(places.latency, (round((job.done - job.arrived) * 1e6, 3),))
        self._add(places.queue_latency, (round(queued, 3),))
        self._add(self._queue_time, (float(int(queued * 1e-3)),))

    def _template(self, places: Asked) -> Callable[..., str]:
        """Return what makes the lines of one good request, all together, until the next second."""
        rows = (
            (places.requests, self._number(1.0)),
            (self._by_status[2], self._number(1.0)),
            (places.latency, "{0:.1f}"),
            (places.queue_latency, "{1:.1f}"),
            (self._queue_time, "{2}.0"),
        )
        lines = [
            f"{_literal(place.head)}{value}{_literal(place.tail)}{self._timestamp}"
            for place, value in rows
            if place is not None and place.is_logged
        ]
        return "\n".join(lines).format if lines else _NO_LINES

    def _take_batches(self, jobs: Sequence[Job]) -> None:
        """Count each batch once: its jobs end one after the other and share the very same spans."""
        last = self._last_spans
        batches: list[list[Job]] = []
        for job in jobs:
            if not job.spans:
                continue
            if job.spans is not last:
                last = job.spans
                batches.append([job])
            elif batches:  # else the batch was counted with the jobs before these
                batches[-1].append(job)
        self._last_spans = last
        by_model: dict[str, list[list[Job]]] = {}
        for batch in batches:
            by_model.setdefault(batch[0].model_version.name, []).append(batch)  # type: ignore[attr-defined]
        for model, done in by_model.items():
            spans = [job.done - job.sent - sum(job.spans) for job, *_ in done]
            # Clocks of two processes: what took no time may come out below zero.
            self._add(self._thread_time, [float(int(span * 1e3)) if span > 0 else 0.0 for span in spans])
            self._take_predictions(model, done)

    def _take_predictions(self, model: str, batches: Sequence[Sequence[Job]]) -> None:
        """Count what the services spent on the batches that they have answered."""
        if model not in self._predictions:
            dimensions = {"ModelName": model, "Level": "Model"}
            self._predictions[model] = self._reported.place(model, "PredictionTime", dimensions)
        place = self._predictions[model]
        good = [batch for batch in batches if any(job.error is None for job in batch)]
        if place is None or not good:
            return
        values = [_prediction_time(batch[0]) for batch in good]
        if self._reported.is_exposed:
            place.add(values)
            return
        prefix, end = self._id_prefix, f",timestamp:{self._timestamp}"
        for value, batch in zip(values, good, strict=True):
            ids = ",".join([f"{prefix}{job.id:012x}" for job in batch])
            self._model_lines.append(f"{place.head}{value}{place.tail}{ids}{end}")

    def _take_status(self, status: int, count: int) -> None:
        self._add(self._by_status.get(status // 100, self._by_status[5]), [1.0] * count)

    def _places_of(self, model: str, asked: str) -> Asked:
        places = self._asked.get((model, asked))
        if places is None:
            known = {"model_name": model, "model_version": asked, "ModelName": model}
            names = (REQUESTS, LATENCY, QUEUE_LATENCY)
            places = self._asked[model, asked] = Asked(*(self._place(name, owner=model, **known) for name in names))
        return places

    def _place(self, name: str, owner: str = "", **known: str) -> Place | None:
        definition = self._definitions.get(name)
        if definition is None:
            return None
        values = {"Level": "Host", "Hostname": self._host, "hostname": self._host, **known}
        labels = tuple(values.get(dimension, "") for dimension in definition.dimensions)
        return Place(definition, labels, self._host, self._families.get(name), owner)

    def _tell(self, what: str, definition: Definition | None) -> None:
        if what not in self._told and len(self._told) < MOST_METRICS:
            self._told.add(what)
            wanted = "" if definition is None else f" with {', '.join(definition.dimensions)}"
            log.warning("%s, which metrics_config does not declare%s: it is dropped.", what, wanted)

    def _add(self, place: Place | None, values: Sequence[float]) -> None:
        if place is None:
            return
        place.add(values)
        if place.is_logged:
            head, end, number = place.head, f"{place.tail}{self._timestamp}", self._number
            self._lines += [f"{head}{number(value)}{end}" for value in values]

    # The log

    def _begin(self) -> None:
        now = int(time())
        if now != self._timestamp:
            self._timestamp = now
            self._templates.clear()

    def _write(self) -> None:
        if self._lines:
            server_log.info("%s", "\n".join(self._lines))
            self._lines = []
        if self._model_lines:
            model_log.info("%s", "\n".join(self._model_lines))
            self._model_lines = []

    # Reading

    def pieces(self, names: Collection[str] = ()) -> Iterator[bytes]:
        """Yield what is exposed, a metric at a time.

        Args:
            names: of samples, the only ones to give; all when there is none.
        """
        for family in (*self._families.values(), *self._reported.families()):
            yield family.text(names).encode()

    def forget(self, models: Collection[str]) -> None:
        """Forget what was counted of models other than these."""
        for family in (*self._families.values(), *self._reported.families()):
            family.keep(models)
        for key in [key for key in self._asked if key[0] not in models]:
            del self._asked[key]
        for model in [model for model in self._predictions if model not in models]:
            del self._predictions[model]


def _prediction_time(job: Job) -> float:
    """Return what a service spent on a job's batch, milliseconds."""
    _, _, preprocess, inference, postprocess, _ = job.spans
    # Steps in threads of a service's own overlap: together they may be longer than all the time that there was.
    return round(min(preprocess + inference + postprocess, job.done - job.sent) * 1e3, 2)


def _NO_LINES(*_: float) -> str:  # noqa: N802 - a constant that can be called
    """Stand for the template of a mode that logs nothing of a request."""
    return ""


def _literal(text: str) -> str:
    """Return a text that ``str.format`` leaves as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def _asked_in(one: Answered) -> str:
    """Return the version that a refused request named, as its path has it."""
    _, _, *rest = [*one.target.partition("?")[0].strip("/").split("/"), "", ""]
    return rest[0] or NO_VERSION


def mms_number(value: float) -> str:
    """Return a number as Multi Model Server logs it: a whole one without its fraction."""
    return f"{value:.10g}"
