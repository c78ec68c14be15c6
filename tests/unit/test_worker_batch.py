"""One batch through a service: whatever goes wrong for one request costs that one alone."""

import pytest

from marserve.errors import BadRequest, InvalidData, PredictionException
from marserve.service.context import Context, RequestInfo
from marserve.worker.batch import JobCancelled, run_batch
from marserve.worker.loader import Entry
from marserve.worker.steps import STEPS, NoSteps

STYLES = ["native", "torchserve", "mms"]


class RecordedSteps(NoSteps):
    def __init__(self):
        super().__init__()
        self.seen = []

    def enter(self, step):
        self.seen.append(f"+{STEPS[step]}")

    def leave(self, step):
        self.seen.append(f"-{STEPS[step]}")


@pytest.fixture
def context():
    return Context("m", "/m", {})


def job(body=b"1", content_type=b"application/json", id="id"):
    return RequestInfo(id, [], (), [(b"body", content_type, body)])


def jobs(*bodies):
    return [job(body, id=f"id{index}") for index, body in enumerate(bodies)]


def run(handle, context, requests, style="native", check=None, steps=None, **more):
    return run_batch(Entry(handle, "test", None, check), context, requests, style, steps or NoSteps(), **more)


def echo(data, context):
    return [row["body"] for row in data]


def told(outcomes):
    """Return body or kind of error of each outcome."""
    return [outcome.body if outcome.error is None else outcome.error.kind for outcome in outcomes]


def test_each_request_gets_its_answer(context):
    (first, second) = run(echo, context, jobs(b"[1]", b'"two"'))
    assert (first.status, first.phrase, first.headers) == (200, b"", ())
    assert (first.body, first.content_type) == (b"[1]", b"application/json")
    assert (second.body, second.content_type) == (b"two", b"text/plain; charset=utf-8")


def test_a_body_that_does_not_decode_is_refused_alone(context):
    ids = []

    def handle(data, context):
        ids.extend(context.request_ids.values())
        context.set_response_status(201, idx=1)
        return echo(data, context)

    outcomes = run(handle, context, jobs(b"1", b"{", b"3", b""))
    assert told(outcomes) == [b"1", "BadRequest", b"3", "BadRequest"]
    assert ids == ["id0", "id2"]  # the context numbers those that remain
    assert [outcome.status for outcome in outcomes] == [200, 200, 201, 200]


def test_the_check_refuses_alone(context):
    def check(row):
        if row["body"] == 2:
            raise InvalidData("two is not served")
        if row["body"] == 3:
            raise PredictionException("three is a teapot", 418)
        if row["body"] == 4:
            raise KeyError("oops")

    outcomes = run(echo, context, jobs(b"1", b"2", b"3", b"4", b"5"), check=check)
    assert told(outcomes) == [b"1", "InvalidData", "PredictionException", "HandlerFault", b"5"]
    assert outcomes[1].error.message == "two is not served"
    assert (outcomes[2].error.code, outcomes[2].error.message) == (418, "three is a teapot")
    assert "KeyError: 'oops'" in outcomes[3].error.message


def test_the_service_is_not_asked_when_nobody_is_left(context):
    def handle(data, context):
        raise AssertionError("called for an empty batch")

    assert told(run(handle, context, jobs(b"{", b"{"))) == ["BadRequest"] * 2


def test_an_exception_in_the_result_is_its_requests_own(context):
    def handle(data, context):
        return ["a", InvalidData("b is bad"), PredictionException("c", 404), ValueError("d"), "e"]

    outcomes = run(handle, context, jobs(*[b"1"] * 5))
    assert told(outcomes) == [b"a", "InvalidData", "PredictionException", "HandlerFault", b"e"]
    assert outcomes[2].error.code == 404


@pytest.mark.parametrize("style", STYLES)
def test_an_element_that_cannot_be_sent_costs_its_request_alone(context, style):
    outcomes = run(lambda data, context: ["a", {1, 2}, "c"], context, jobs(b"1", b"2", b"3"), style)
    assert told(outcomes) == [b"a", "HandlerFault", b"c"]
    assert outcomes[1].error.reason == "unsendable"
    assert "set at result" in outcomes[1].error.message


def test_invalid_data_raised_for_a_batch_is_blamed_on_those_it_means(context):
    def handle(data, context):
        values = [row.pop("body") for row in data]  # what a first try did to its rows is not seen by the second
        if 2 in values:
            raise InvalidData("two is not served")
        return [f"{value} of {len(data)} as {context.get_request_id()}" for value in values]

    outcomes = run(handle, context, jobs(b"1", b"2", b"3"))
    assert told(outcomes) == [b"1 of 1 as id0", "InvalidData", b"3 of 1 as id2"]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ValueError("bad"), "HandlerFault", 0),
        (PredictionException("no", 402), "PredictionException", 402),
        (PredictionException("no"), "PredictionException", 500),
        (BadRequest("no"), "BadRequest", 0),
        (MemoryError(), "OutOfMemory", 0),
        (RuntimeError("CUDA out of memory. Tried"), "OutOfMemory", 0),
        (RecursionError("deep"), "HandlerFault", 0),
    ],
)
def test_an_exception_of_the_service_answers_the_whole_batch(context, error, kind, code):
    def handle(data, context):
        raise error

    outcomes = run(handle, context, jobs(b"1", b"2"))
    assert told(outcomes) == [kind] * 2
    assert outcomes[0].error.code == code


def test_torchserve_takes_every_mention_of_cuda_for_a_lack_of_memory(context):
    def handle(data, context):
        raise RuntimeError("CUDA error: device-side assert")

    assert told(run(handle, context, jobs(b"1"), "torchserve")) == ["OutOfMemory"]
    assert told(run(handle, context, jobs(b"1"))) == ["HandlerFault"]


def test_the_traceback_is_the_authors(context):
    def handle(data, context):
        return data[0]["absent"]

    (outcome,) = run(handle, context, jobs(b"1"))
    assert outcome.error.reason == "raised"
    assert "KeyError: 'absent'" in outcome.error.message
    assert 'return data[0]["absent"]' in outcome.error.traceback
    assert "worker/batch.py" not in outcome.error.traceback


@pytest.mark.parametrize(
    ("result", "reason", "said"),
    [
        (None, "not_a_list", "NoneType, not a list"),
        (("a", "b"), "not_a_list", "tuple, not a list"),
        ({"a": 1}, "not_a_list", "dict, not a list"),
        ([], "wrong_count", "0 results for 2 requests"),
        (["a", "b", "c"], "wrong_count", "3 results for 2 requests"),
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_a_result_that_cannot_be_dealt_out(context, style, result, reason, said):
    outcomes = run(lambda data, context: result, context, jobs(b"1", b"2"), style)
    assert told(outcomes) == ["HandlerFault"] * 2
    assert outcomes[0].error.reason == reason
    assert said in outcomes[0].error.message


def test_a_coroutine_is_told_apart(context):
    async def handle(data, context):
        return ["a"]

    kept = []
    (outcome,) = run(lambda data, context: kept.append(handle(data, context)) or kept[0], context, jobs(b"1"))
    kept[0].close()
    assert "async def" in outcome.error.hint


def test_a_list_of_another_class_will_do(context):
    class Results(list):
        pass

    assert told(run(lambda data, context: Results(["a"]), context, jobs(b"1"))) == [b"a"]


def test_status_and_headers_reach_the_answer(context):
    def handle(data, context):
        context.set_response_status(202, "Taken", 0)
        context.set_response_header(0, "X-A", "grün")
        context.set_response_header(0, "X-Count", 3)
        context.set_response_header(0, "Content-Length", "999")  # framing is the server's
        context.set_response_content_type(0, "image/png")
        context.get_request_header(1, "anything")
        return [b"\x89", {"a": 1}]

    first, second = run(handle, context, jobs(b"1", b"2"))
    assert (first.status, first.phrase, first.content_type) == (202, b"Taken", b"image/png")
    assert first.headers == [b"X-A", "grün".encode("latin-1"), b"X-Count", b"3"]
    assert (second.status, second.headers, second.content_type) == (200, (), b"application/json")


@pytest.mark.parametrize(("style", "kept"), [("native", [b"Expires", b"0"]), ("torchserve", [])])
def test_headers_that_the_door_sends_are_not_sent_twice(context, style, kept):
    def handle(data, context):
        context.set_response_header(0, "X-Request-Id", "mine")
        context.set_response_header(0, "Expires", "0")
        return ["a"]

    (outcome,) = run(handle, context, jobs(b"1"), style=style)
    assert outcome.headers == kept


@pytest.mark.parametrize(
    ("touch", "said"),
    [
        (lambda c: c.set_response_header(0, "X-A", "1\r\nSet-Cookie: a"), "line break"),
        (lambda c: c.set_response_header(0, "X\nA", "1"), "no name"),
        (lambda c: c.set_response_header(0, "", "1"), "no name"),
        (lambda c: c.set_response_header(0, "X A", "1"), "no name"),
        (lambda c: c.set_response_header(0, "X:A", "1"), "no name"),
        (lambda c: c.set_response_header(0, "é", "1"), "no name"),
        (lambda c: c.set_response_status(200, "OK\r\nX: y"), "line break"),
        (lambda c: c.set_response_content_type(0, "a\n"), "line break"),
        (lambda c: c.set_response_status(42), "the status 42"),
        (lambda c: c.set_response_status("soon"), "the status 'soon'"),
    ],
)
def test_a_head_that_cannot_be_sent_costs_its_request_alone(context, touch, said):
    def handle(data, context):
        touch(context)
        return ["a", "b"]

    outcomes = run(handle, context, jobs(b"1", b"2"))
    assert told(outcomes) == ["HandlerFault", b"b"]
    assert said in outcomes[0].error.message


def test_characters_beyond_latin1_travel_as_utf8(context):
    def handle(data, context):
        context.set_response_header(0, "X-A", "日")
        return ["a"]

    assert run(handle, context, jobs(b"1"))[0].headers == [b"X-A", "日".encode()]


def test_status_of_one_batch_is_not_the_nexts(context):
    def handle(data, context):
        if data[0]["body"] == 1:
            context.set_response_status(500, "broken")
            context.set_response_header(0, "X-A", "1")
        return ["a"]

    assert run(handle, context, jobs(b"1"))[0].status == 500
    (second,) = run(handle, context, jobs(b"2"))
    assert (second.status, second.phrase, second.headers) == (200, b"", ())


def test_decoding_may_be_off(context):
    assert told(run(echo, context, jobs(b"{"), decode_input=False)) == [b"{"]


def test_malformed_json_reaches_services_of_the_old_servers_raw(context):
    for style in ("torchserve", "mms"):
        assert told(run(echo, context, jobs(b"{"), style)) == [b"{"]


def test_steps_are_told_in_their_order_and_closed_when_the_service_raises(context):
    steps = RecordedSteps()
    run(echo, context, jobs(b"1"), steps=steps)
    assert steps.seen == ["+decode", "-decode", "+encode", "-encode"]
    steps = RecordedSteps()
    run(lambda data, context: 1 / 0, context, jobs(b"1"), steps=steps)
    assert steps.seen == ["+decode", "-decode"]


def test_a_cancelled_batch_is_not_answered(context):
    def handle(data, context):
        try:
            raise JobCancelled
        except Exception:
            return ["swallowed"]

    with pytest.raises(JobCancelled):
        run(handle, context, jobs(b"1"))


class Asking(RequestInfo):
    """Asks for a description, as the loop's requests do."""

    wants_description = True


class SelfDescribed:
    def describe_handle(self):
        return {"name": "mine"}


def test_a_description_is_asked_for_beside_predictions_that_share_its_batch(context):
    seen = []

    def handle(data, context):
        seen.append(len(data))
        return echo(data, context)

    entry = Entry(handle, "test", SelfDescribed())
    outcomes = run_batch(entry, context, [*jobs(b"1"), Asking("asking"), *jobs(b"2")], "native", NoSteps())

    assert told(outcomes) == [b"1", b'{"name":"mine"}', b"2"]
    assert seen == [2]


def test_a_service_without_words_for_itself_is_called_with_an_empty_row(context):
    assert told(run(lambda data, context: [{"got": data}], context, [Asking("asking")])) == [b'{"got":[{}]}']


def test_status_and_headers_of_a_description_are_the_services_choice(context):
    def handle(data, context):
        context.set_response_status(418, "Teapot")
        context.set_response_header(0, "x-own", "1")
        return [{}]

    (outcome,) = run(handle, context, [Asking("asking")])

    assert (outcome.status, outcome.phrase, list(outcome.headers)) == (418, b"Teapot", [b"x-own", b"1"])


@pytest.mark.parametrize("result", [None, [], [object()]])
def test_a_description_that_cannot_be_sent_is_a_fault(context, result):
    assert told(run(lambda data, context: result, context, [Asking("asking")])) == ["HandlerFault"]


def test_a_prediction_without_parts_is_none(context):
    assert told(run(lambda data, context: [{"rows": data}], context, [RequestInfo("id")])) == [b'{"rows":[{}]}']
