"""``Server-Timing``: where the time of one answer went. Source: W3C Server Timing; milliseconds."""

from __future__ import annotations

from time import monotonic

from marserve.batching.job import Job
from marserve.wire.frames import SPANS

#: How the header of a request that asks for it looks in a job's meta, in lower case.
_ASKED = b"\nserver-timing\n"

#: Values of the setting ``server_timing``.
OFF, ASKED, ALWAYS = "off", "asked", "always"


def is_wanted(setting: str, meta: bytes) -> bool:
    """Whether an answer is to say where its time went."""
    return setting == ALWAYS or (setting == ASKED and _ASKED in meta.lower())


def timing_header(job: Job) -> bytes:
    """Return the header line of a job that is being answered.

    ``batch_wait`` is until the newest request of its batch had come, ``queue`` from there until the batch left for a
    worker, ``wire`` the way there and back; then come the worker's spans, and ``total`` since the arrival. What the
    job did not get to is left out, and of an answer in pieces what had not happened when it began.
    """
    now = job.done or monotonic()
    found = []
    if job.sent:
        complete = max(job.filled, job.arrived)
        found += [("batch_wait", complete - job.arrived), ("queue", job.sent - complete)]
    if job.spans:
        found += [("wire", max(0.0, job.done - job.sent - sum(job.spans))), *zip(SPANS, job.spans, strict=True)]
    found.append(("total", now - job.arrived))
    told = ", ".join(f"{name};dur={seconds * 1000.0:.3f}" for name, seconds in found)
    return f"server-timing: {told}\r\n".encode()
