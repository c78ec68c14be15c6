"""The paths of predictions that TorchServe's clients know, and what becomes of the query."""

from types import SimpleNamespace

import pytest

from marserve.batching.job import JobKind
from marserve.doors.http.dialects import DIALECTS
from marserve.doors.http.inference import InferenceDoor
from marserve.errors import BadRequest, ModelNotFound
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
        (b"/m/1.0/predict/", (PREDICT, "m", "1.0")),
        (b"/m%2F1.0%2fpredict", (PREDICT, "m", "1.0")),
    ],
)
def test_torchserve_alone_has_the_old_paths(target: bytes, wanted: tuple[JobKind, str, str | None]) -> None:
    found = lane("torchserve", target)

    assert (found._kind, found._model, found._version) == wanted
    assert lane("native", target) is None
    assert lane("mms", target) is None


@pytest.mark.parametrize("target", [b"/models/m/invoke?a=1", b"/m/predict?a=1"])
def test_both_old_servers_have_the_paths_of_sagemaker_and_the_first_releases(target: bytes) -> None:
    for dialect in ("torchserve", "mms"):
        found = lane(dialect, target)
        assert (found._kind, found._model, found._version) == (PREDICT, "m", None)
        assert found._inputs == ((b"a", b"", b"1"),)
    assert lane("native", target) is None


def test_what_follows_a_model_means_nothing_to_multi_model_server() -> None:
    found = lane("mms", b"/predictions/m/1.0/more")

    assert (found._model, found._version) == ("m", None)
    for target in (b"/explanations/m", b"/predictions", b"//predictions/m", b"/ping/predict"):
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


def named(dialect: str, only: str, query: bytes, form: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the model that a request to ``/invocations`` is for; ``only`` is the one of the start-up."""
    found = lane(dialect, b"/invocations" + query)
    monkeypatch.setattr(found.door.plane, "only_model", lambda: only)
    exchange = SimpleNamespace(body=lambda: form)
    return found.model_of(exchange, b"application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("query", "form", "wanted"),
    [
        (b"?model_name=q", b"model_name=f", "q"),
        (b"?model_name=q&model_name=r", b"", "q"),
        (b"?a=1;model_name=q", b"", "q"),
        (b"", b"model_name=f&model_name=g", "f"),
        (b"", b"model_name=f", "f"),
        (b"", b"", "o"),
        (b"?model_name=", b"", "o"),
    ],
)
def test_who_answers_invocations(query: bytes, form: bytes, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for dialect in ("native", "torchserve"):
        assert named(dialect, "o", query, form, monkeypatch) == wanted


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="model_name"',
        b"Content-Disposition: form-data; name=model_name",
        b'Content-Disposition: form-data; name="model_name"; filename="x"',
        b'Content-Disposition: form-data; name="model_name"\r\nContent-Type: text/plain; charset=ISO-8859-1',
    ],
)
def test_who_answers_invocations_of_a_form_in_parts(head: bytes) -> None:
    first = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nname="model_name"\r\n'
    form = first + b"--x\r\n%b\r\n\r\nm\r\n--x--" % head
    exchange = SimpleNamespace(body=lambda: form)

    assert lane("torchserve", b"/invocations").model_of(exchange, b"multipart/form-data; boundary=x") == "m"


def test_a_form_that_breaks_off_names_no_model() -> None:
    exchange = SimpleNamespace(body=lambda: b"--x\r\nContent-Disposition: form-data")

    with pytest.raises(BadRequest, match="model_name is required"):
        lane("torchserve", b"/invocations").model_of(exchange, b"multipart/form-data; boundary=x")


@pytest.mark.parametrize(("query", "form"), [(b"?model_name=", b""), (b"", b"model_name=&a=1")])
def test_an_empty_name_is_one_to_torchserve(query: bytes, form: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFound):
        named("torchserve", "", query, form, monkeypatch)
    for dialect in ("native", "mms"):
        with pytest.raises(BadRequest):
            named(dialect, "", query, form, monkeypatch)


def test_the_query_of_invocations_is_an_input_of_the_old_servers_alone() -> None:
    target = b"/invocations?model_name=m&a=1"

    assert lane("native", target)._inputs == ()
    assert lane("mms", target)._inputs == lane("torchserve", target)._inputs != ()
