"""The fast lane of predictions: what is left of a request once it has its answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from door_caller import Caller
from http_fakes import post
from served_fakes import FakeVersion, archive_of

from marserve.batching.job import Job
from marserve.errors import HandlerFault
from marserve.models.model import VersionConfig
from marserve.models.registry import Registry
from marserve.planes.inference import InferencePlane


class KeepingPlane(InferencePlane):
    """Keeps the jobs, and does not do them."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.jobs: list[Job] = []
        self.given_up: list[Job] = []

    def start(self, job: Job) -> None:
        self.jobs.append(job)

    def give_up(self, job: Job) -> None:  # type: ignore[override]
        self.given_up.append(job)


def in_pieces(job: Job, caller: Caller) -> None:
    job.reply.start(200, b"OK", ())
    job.reply.chunk(b"piece")
    job.reply.end()


def broken_off(job: Job, caller: Caller) -> None:
    job.reply.start(200, b"OK", ())
    job.reply.fail(HandlerFault("no"))


@pytest.mark.parametrize(
    ("end", "is_given_up"),
    [
        (lambda job, caller: job.reply.answer(200, b"OK", (), b"{}"), False),
        (lambda job, caller: job.reply.fail(HandlerFault("no")), False),
        (in_pieces, False),
        (broken_off, False),
        (lambda job, caller: caller.connection.connection_lost(None), True),
    ],
    ids=["answered", "failed", "in pieces", "broken off", "given up"],
)
def test_a_job_that_has_ended_does_not_hold_its_request(
    end: Callable[[Job, Caller], None], is_given_up: bool
) -> None:
    registry = Registry()
    registry.add(FakeVersion("m", "1.0", archive_of("m.mar", "1.0"), VersionConfig()))
    plane = KeepingPlane(registry)
    caller = Caller(plane)
    caller.connection.data_received(post(b"/predictions/m", b"{}"))
    (job,) = plane.jobs

    end(job, caller)

    assert job.reply.job is None  # type: ignore[attr-defined]
    assert not hasattr(job.reply, "_exchange")
    assert plane.given_up == ([job] if is_given_up else [])
