"""What every answer carries, and how requests find their door."""

import logging

import pytest
from served_fakes import GONE, Served

from marserve.doors.http.cors import cors_headers, cors_pairs

NO_CACHE = "no-cache; no-store, must-revalidate, private"


def test_each_answer_has_an_id_of_its_own() -> None:
    served = Served()

    ids = {served.ask("GET", target).headers["x-request-id"] for target in ("/ping", "/ping", "/nowhere")}

    assert len(ids) == 3
    assert all(len(found) == 36 for found in ids)


def test_the_old_servers_answers_forbid_caching_and_errors_close_the_connection() -> None:
    served = Served("torchserve")

    good, bad = served.ask("GET", "/ping"), served.ask("GET", "/nowhere")

    assert good.headers["Cache-Control"] == NO_CACHE
    assert "connection" not in good.headers
    assert bad.headers["connection"] == "close"
    assert bad.json == {
        "code": 404,
        "type": "ResourceNotFoundException",
        "message": "Requested resource is not found, please refer to API document.",
    }


def test_natively_a_wrong_method_is_told_which_ones_there_are() -> None:
    answer = Served().ask("DELETE", "/models")

    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize("dialect", ["torchserve", "mms"])
@pytest.mark.parametrize(("method", "target"), [("GET", "/"), ("PUT", "/models"), ("PATCH", "/models/m")])
def test_the_old_servers_refuse_a_wrong_method_in_their_words(dialect: str, method: str, target: str) -> None:
    answer = Served(dialect).ask(method, target)

    assert (answer.status, answer.json["type"]) == (405, "MethodNotAllowedException")


@pytest.mark.parametrize(
    ("doors", "found", "missing"),
    [
        (("inference",), "/ping", "/models"),
        (("management",), "/models", "/ping"),
        (("metrics",), "/metrics", "/models"),
    ],
)
def test_an_address_serves_its_own_doors_alone(doors: tuple[str, ...], found: str, missing: str) -> None:
    served = Served(doors=doors)

    assert served.ask("GET", found).status == 200
    assert served.ask("GET", missing).status == 404


def test_doors_that_share_an_address_are_all_there() -> None:
    served = Served()

    assert [served.ask("GET", target).status for target in ("/ping", "/models", "/metrics")] == [200, 200, 200]


def test_slashes_at_the_end_do_not_count() -> None:
    assert Served().ask("GET", "/models///").status == 200


@pytest.mark.parametrize("dialect", ["torchserve", "mms"])
def test_the_old_servers_take_head_for_no_get(dialect: str) -> None:
    assert Served(dialect).ask("HEAD", "/models").status == 405


def test_head_is_answered_as_get() -> None:
    assert Served().ask("HEAD", "/ping").status == 200


def test_natively_the_root_lists_the_routes() -> None:
    routes = Served().ask("GET", "/").json["routes"]

    assert {"POST /predictions/{model}", "GET /ping", "PUT /models/{model}", "GET /metrics"} <= {
        f"{route['method']} {route['path']}" for route in routes
    }


def test_what_nobody_foresaw_is_a_plain_sentence_outside_and_a_trace_in_the_log(caplog) -> None:
    served = Served()
    served.management.open_failure = RuntimeError("secret detail")

    answer = served.ask("POST", "/models?url=a.mar")

    assert answer.status == 500
    assert b"secret" not in answer.body
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert answer.headers["x-request-id"] in record.getMessage()
    assert "secret detail" in caplog.text


def test_a_client_that_leaves_before_its_body_is_complete_gets_no_answer_and_no_trace(caplog) -> None:
    served = Served()

    assert served.ask("POST", "/models", GONE, content_type="application/json") is None
    assert not caplog.records
    assert not served.registry.models


def test_the_observer_hears_of_every_answer() -> None:
    served = Served()
    heard = []
    served.collector.request_answered = lambda *what: heard.append(what)  # type: ignore[method-assign]

    served.ask("GET", "/models?limit=1")
    served.ask("GET", "/nowhere")

    assert [what[:4] for what in heard] == [
        (("192.0.2.7", 4242), "GET", "/models?limit=1", 200),
        (("192.0.2.7", 4242), "GET", "/nowhere", 404),
    ]
    assert all(what[4] >= 0.0 for what in heard)


def test_pages_of_an_allowed_origin_may_call() -> None:
    served = Served(cors=tuple(cors_pairs("https://app.example", "GET, POST", "content-type")))

    answer = served.ask("GET", "/ping")
    preflight = served.ask(
        "OPTIONS", "/predictions/m", origin="https://app.example", access_control_request_method="POST"
    )

    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"
    assert preflight.headers["access-control-allow-headers"] == "content-type"


def test_without_an_allowed_origin_nothing_is_said_of_it() -> None:
    answer = Served().ask("GET", "/ping")

    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert cors_headers("", "GET", "") == b""


def test_the_fast_lane_gets_the_same_as_lines() -> None:
    assert cors_headers("*", "GET", "") == b"access-control-allow-origin: *\r\naccess-control-allow-methods: GET\r\n"


def test_a_setting_cannot_end_the_header_of_an_answer() -> None:
    with pytest.raises(ValueError, match="header"):
        cors_headers("*\r\nx: y", "", "")


@pytest.mark.parametrize("path", ["/models/m/invoke", "/v1/models/m:predict", "/v2/models/m/infer", "/m/predict"])
def test_options_describes_predictions_where_management_shares_the_address(path: str) -> None:
    served = Served("torchserve", doors=("inference", "management"))
    served.add()

    answer = served.ask("OPTIONS", path)

    assert answer.status == 200
    assert "/prediction/m" in answer.json["paths"]  # the original's spelling
    assert served.ask("OPTIONS", "/v1/models/m").status == 405
