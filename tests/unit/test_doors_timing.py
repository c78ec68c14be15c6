"""``Server-Timing``: who gets it, and that its parts make up the whole."""

from __future__ import annotations

import re

import pytest

from marserve.batching.job import Job, JobKind
from marserve.doors.http.timing import ALWAYS, ASKED, OFF, is_wanted, timing_header
from marserve.testing import RecordingReply
from marserve.wire.frames import SPANS


@pytest.mark.parametrize(
    ("setting", "meta", "wanted"),
    [
        (ASKED, b"\n\n\nhost\nx\nServer-Timing\n1", True),
        (ASKED, b"\n\n\nSERVER-TIMING\n", True),
        (ASKED, b"\n\n\nhost\nserver-timing.example", False),
        (ASKED, b"\n\n", False),
        (OFF, b"\n\n\nserver-timing\n1", False),
        (ALWAYS, b"\n\n", True),
    ],
)
def test_who_gets_it(setting: str, meta: bytes, wanted: bool) -> None:
    assert is_wanted(setting, meta) is wanted


def a_job(**moments: object) -> Job:
    job = Job(1, JobKind.PREDICT, b"\n\n", (), 0, RecordingReply(), None, 10.0, 1e9)
    for name, moment in moments.items():
        setattr(job, name, moment)
    return job


def parts(job: Job) -> dict[str, float]:
    line = timing_header(job).decode()
    assert line.startswith("server-timing: ")
    assert line.endswith("\r\n")
    return {name: float(value) for name, value in re.findall(r"([a-z_]+);dur=([\d.]+)", line)}


def test_the_parts_make_up_the_whole() -> None:
    spans = (0.001, 0.002, 0.003, 0.004, 0.005, 0.006)
    found = parts(a_job(filled=10.01, sent=10.03, done=10.06, spans=spans))
    assert list(found) == ["batch_wait", "queue", "wire", *SPANS, "total"]
    assert found["batch_wait"] == pytest.approx(10.0)
    assert found["queue"] == pytest.approx(20.0)
    assert found["wire"] == pytest.approx(30.0 - 21.0)
    assert found["total"] == pytest.approx(sum(found.values()) - found["total"])


def test_what_a_job_did_not_get_to_is_left_out() -> None:
    assert list(parts(a_job(done=10.5))) == ["total"]
    assert list(parts(a_job(filled=10.0, sent=10.1, done=10.5))) == ["batch_wait", "queue", "total"]
