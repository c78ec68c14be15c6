"""The paths of predictions that TorchServe's clients know, and what becomes of the query."""

import pytest

from marserve.batching.job import JobKind
from marserve.doors.http.dialects import DIALECTS
from marserve.doors.http.inference import InferenceDoor
from marserve.metrics.collector import Collector
from marserve.models.registry import Registry
from marserve.planes.inference import InferencePlane

PREDICT, EXPLAIN = JobKind.PREDICT, JobKind.EXPLAIN


def lane(dialect: str, target: bytes):
    door = InferenceDoor(InferencePlane(Registry()), DIALECTS[dialect], Collector(), 1000, b"")
    return door.lane(b"POST", target)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/v1/models/m:predict", (PREDICT, "m", None)),
        (b"/v1/models/m:explain?a=1", (EXPLAIN, "m", None)),
        (b"/v1/models/m%3Apredict", (PREDICT, "m", None)),
        (b"/v2/models/m/infer", (PREDICT, "m", None)),
        (b"/v2/models/m/explain", (EXPLAIN, "m", None)),
        (b"/models/m/invoke", (PREDICT, "m", None)),
        (b"/m/predict", (PREDICT, "m", None)),
        (b"/m/1.0/predict/", (PREDICT, "m", "1.0")),
    ],
)
def test_torchserve_alone_has_the_old_paths(target: bytes, wanted: tuple[JobKind, str, str | None]) -> None:
    found = lane("torchserve", target)

    assert (found._kind, found._model, found._version) == wanted
    assert lane("native", target) is None
    assert lane("mms", target) is None


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models/m",
        b"/v1/models/m:other",
        b"/v1/models/m:predict/1.0",
        b"/v2/models/m",
        b"/v2/models/m/infer/more",
        b"/models/predict",
        b"/models/m/predict",
        b"/ping/predict",
        b"/m/1.0/predict/more",
        b"//predictions/m",
    ],
)
def test_what_only_looks_like_one_is_none(target: bytes) -> None:
    assert lane("torchserve", target) is None


@pytest.mark.parametrize("path", [b"/invocations", b"/models/m/invoke", b"/m/predict", b"/m/1.0/predict"])
def test_the_query_is_input_where_it_was(path: bytes) -> None:
    found = lane("torchserve", path + b"?a=x%20y+z&b&a=2")

    assert found._inputs == ((b"a", b"", b"x y z"), (b"b", b"", b""), (b"a", b"", b"2"))


@pytest.mark.parametrize("path", [b"/predictions/m", b"/explanations/m/1.0", b"/v1/models/m:predict"])
def test_the_query_is_no_input_elsewhere(path: bytes) -> None:
    assert lane("torchserve", path + b"?a=1")._inputs == ()


@pytest.mark.parametrize("dialect", ["native", "mms"])
def test_the_query_of_invocations_is_no_input_of_the_other_dialects(dialect: str) -> None:
    assert lane(dialect, b"/invocations?model_name=m&a=1")._inputs == ()
