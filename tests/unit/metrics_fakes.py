"""Jobs that have ended, and the metrics that come of them, read back."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from marserve.batching.job import Job, JobState
from marserve.metrics.collector import Collector
from marserve.metrics.exposition import pieces


@dataclass(frozen=True)
class Version:
    name: str = "m"
    version: str = "1.0"


VERSION = Version()


def ended(
    *,
    version=VERSION,
    status=200,
    error=None,
    arrived=1.0,
    sent=1.1,
    done=2.0,
    spans=None,
    batch_size=1,
    size=3,
    target=b"/predictions/m?x=1",
    client=("192.0.2.7", 4242),
) -> Job:
    """Return a job that has its answer."""
    job = Job(1, 0, b"", ((b"body", b"", b"abc"),), size, object(), version, arrived, arrived + 120.0)
    job.state = JobState.ANSWERED
    job.status, job.error = status, error
    job.sent, job.done = sent, done
    job.spans = tuple([0.001] * 6) if spans is None else spans  # a new one each: jobs of one batch share theirs
    job.started = done - sum(job.spans[1:])
    job.batch_size = batch_size
    job.client, job.method, job.target = client, b"POST", target
    return job


def samples(collector: Collector, readings=(), names=()) -> dict[tuple[str, ...], float]:
    """Return value by (name of the sample, values of its labels in alphabetic order)."""
    text = b"".join(pieces(collector, readings, names)).decode()
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            bound = (labels.pop("le"),) if "le" in labels else ()
            first = tuple(labels.pop(name) for name in ("model", "version") if name in labels)
            key = (sample.name, *first, *labels.values(), *bound)
            assert key not in found, f"{key} was given twice"
            found[key] = sample.value
    return found
