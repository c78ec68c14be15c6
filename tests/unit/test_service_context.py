"""What a service is told of its requests, and what it sets on its answers."""

import time

import pytest

from marserve.service.context import Context, RequestInfo, RequestProcessor


@pytest.fixture
def context():
    return Context("m", "/models/m", {"model": {"modelName": "m"}}, 4, 1, "0.1.0")


def request(id="a", headers=(), **more):
    return RequestInfo(id, headers, **more)


def test_system_properties_have_the_old_servers_names(context):
    assert context.system_properties == {
        "model_dir": "/models/m",
        "gpu_id": 1,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": "0.1.0",
        "limit_max_image_pixels": True,
    }
    assert context.device == "cuda:1"
    assert Context("m", "/m", None).device == "cpu"
    assert Context("m", "/m", None).system_properties["gpu_id"] is None
    assert context.model_yaml_config == {}
    assert context.stopping_criteria is None


def test_it_is_an_ordinary_object(context):
    context.cache = {"a": 1}
    context.begin([request()])
    assert context.cache == {"a": 1}


def test_nothing_is_formatted_unless_it_is_asked_for(context):
    asked = []

    def id_text():
        asked.append(1)
        return "id-1"

    context.begin([request(id_text)])
    assert context.touched() is None
    assert not asked
    assert context.get_request_id() == "id-1"
    assert context.request_ids == {0: "id-1"}
    assert asked == [1]
    assert context.get_request_id(3) is None


@pytest.mark.parametrize("is_joined", [False, True])
def test_headers_keep_their_letter_case_and_the_last_wins(context, is_joined):
    flat = [b"Content-Type", b"text/plain", b"X-A", b"1", b"X-A", b"2", b"x-name", b"gr\xfcn", b"x-utf", b"\xc3\xbc"]
    context.begin([request(headers=b"\n".join(flat) if is_joined else flat)])
    assert context.get_all_request_header(0) == {
        "Content-Type": "text/plain",
        "X-A": "2",
        "x-name": "grün",
        "x-utf": "ü",
    }
    assert context.get_request_header(0, "Content-Type") == "text/plain"
    assert context.get_request_header(0, "content-type") == "text/plain"  # in any letter case on a miss
    assert context.get_request_header(0, "absent") is None


def test_parts_and_the_servers_own_headers_stand_among_the_clients(context):
    form = b"a=1&explain=x"
    text = (b"t", b"text/plain; charset=utf-8", b"2")
    parts = [(b"body", b"application/x-www-form-urlencoded", form), (b"q", b"", b"1"), text]
    headers = [b"explain", b"forged", b"url_path", b"forged"]
    extra = [b"explain", b"False", b"url_path", b"x/y"]
    context.begin([request(headers=headers, extra=extra, parts=parts)])
    assert context.get_all_request_header(0) == {
        "explain": "False",
        "url_path": "x/y",
        "a": {"content-type": ""},
        "q": {"content-type": ""},
        "t": {"content-type": "text/plain"},
    }


def test_each_request_has_an_answer_of_its_own(context):
    context.begin([request("a"), request("b")])
    context.set_response_status(418, "teapot", idx=1)
    context.set_response_header(0, "X-A", "1")
    context.set_response_content_type(0, "text/html")
    assert context.get_response_status(0) == (200, None)
    assert context.get_response_status(1) == (418, "teapot")
    assert context.get_response_headers(0) == {"X-A": "1", "content-type": "text/html"}
    assert context.get_response_content_type(0) == "text/html"
    assert context.get_response_headers(1) == {}
    assert [each.is_untouched for each in context.touched()] == [False, False]


def test_all_answers_at_once(context):
    context.begin([request("a"), request("b")])
    context.set_all_response_status(503, "busy")
    assert [context.get_response_status(idx) for idx in (0, 1)] == [(503, "busy")] * 2


def test_a_request_may_be_addressed_by_its_id(context):
    context.begin([request("a"), request("b")])
    context.set_response_content_type("b", "text/html")
    assert context.get_response_content_type(1) == "text/html"
    assert context.get_response_content_type(0) is None


def test_both_shapes_of_the_request_processor_work(context):
    context.begin([request("a", [b"X-A", b"1"]), request("b")])
    context.request_processor[1].report_status(404, "gone")
    assert context.get_response_status(1) == (404, "gone")
    # A single processor, as Multi Model Server had up to 1.0.4
    context.request_processor.report_status(500, "broken")
    assert [each.get_response_status_code() for each in context.request_processor] == [500, 500]
    assert context.request_processor.get_request_property("X-A") == "1"
    assert context.request_processor.get_request_properties() == {"X-A": "1"}
    assert context.request_processor._request_header == {"X-A": "1"}
    assert context._request_processor[0]._request_header == {"X-A": "1"}
    context.request_processor.add_response_property("X-B", "2")
    assert context.request_processor.get_response_headers() == {"X-B": "2"}
    assert context.request_processor.get_response_header("X-B") == "2"
    assert context.request_processor.get_response_status_phrase() == "broken"
    with pytest.raises(AttributeError, match="unheard_of"):
        context.request_processor.unheard_of()


def test_tests_of_handlers_may_set_what_the_server_would(context):
    context.request_ids = {0: "set"}
    context.request_processor = [RequestProcessor({"X": "1"})]
    assert context.get_request_id() == "set"
    assert context.get_request_header(0, "X") == "1"
    assert RequestProcessor().get_request_properties() == {}
    assert RequestProcessor({"X": "1"}).get_request_property(None) is None


def test_a_status_that_is_set_while_the_service_is_loaded_is_nobodys(context):
    context.set_response_status(500, "broken")
    context.begin([request("a")])
    assert context.get_response_status(0) == (200, None)
    with pytest.raises(IndexError):
        context.set_response_status(500, "beyond the batch", 1)


def test_nothing_of_a_batch_is_left_in_the_next(context):
    context.begin([request("a", [b"X-A", b"1"])])
    context.set_response_status(500)
    assert context.request_ids == {0: "a"}
    context.begin([request("b")])
    assert context.touched() is None
    assert context.request_ids == {0: "b"}
    assert context.get_all_request_header(0) == {}
    assert context.get_response_status(0) == (200, None)


def test_pieces_go_to_all_requests_or_to_those_that_are_named(context):
    sent = []
    context._send = lambda values, status, phrase: sent.append((values, status, phrase))
    context.begin([request("a"), request("b")])
    context.send_intermediate(["x", "y"])
    context.send_intermediate({1: "z"}, 206, "Part")
    assert sent == [({0: "x", 1: "y"}, 200, ""), ({1: "z"}, 206, "Part")]
    with pytest.raises(ValueError, match="1 pieces were given for 2 requests"):
        context.send_intermediate(["x"])
    with pytest.raises(ValueError, match="given for request 2, and the batch has 2 requests"):
        context.send_intermediate({2: "x"})


def test_sequence_id_and_deadline(context):
    headers = [b"ts_request_sequence_id", b"s1"]
    context.begin([request(headers=headers, deadline=time.monotonic() + 1000), request()])
    assert context.get_sequence_id(0) == "s1"
    assert context.get_sequence_id(1) is None
    assert 0 < context.deadline_left(0) <= 1000
    assert context.deadline_left(1) is None
    context.header_key_sequence_id = "X-Sequence"
    assert context.get_sequence_id(0) is None
