"""The routes that an archive names: what is one, and which paths are the server's own."""

from __future__ import annotations

import re

import pytest
from served_fakes import Served

from marserve.doors.http.descriptions import LANES
from marserve.errors import BadRequest
from marserve.models.routes import METHODS, Route, routes_of


def test_a_route_is_a_method_and_a_path_as_they_are_written() -> None:
    (route,) = routes_of({"routes": ["POST /v1/multimodal/"]})

    assert (route.method, route.path, route.segments) == ("POST", "/v1/multimodal/", ("v1", "multimodal"))
    assert str(route) == "POST /v1/multimodal/"


def test_who_names_none_has_none() -> None:
    assert routes_of({}) == routes_of({"routes": None}) == routes_of({"routes": []}) == ()


def test_the_method_tells_routes_apart_and_a_slash_at_the_end_does_not() -> None:
    found = routes_of({"routes": ["POST /a/b", "GET /a/b", "POST /a/b/", "POST /a"]})

    assert [(route.method, route.segments) for route in found] == [
        ("POST", ("a", "b")),
        ("GET", ("a", "b")),
        ("POST", ("a",)),
    ]


@pytest.mark.parametrize(
    "asked",
    [
        "POST /a",
        {"POST": "/a"},
        [7],
        [None],
        [""],
        ["POST"],
        ["/a"],
        ["post /a"],
        ["HEAD /a"],
        ["OPTIONS /a"],
        ["POST  /a"],
        ["POST a"],
        ["POST /a b"],
        ["POST /a//b"],
        ["POST //a"],
        ["POST /a/../b"],
        ["POST /."],
        ["POST /a?b=c"],
        ["POST /a%20b"],
        ["POST /{model}"],
        ["POST /a\n"],
        ["POST /ä"],
        ["POST /good", "POST bad"],
    ],
)
def test_what_is_none_is_refused_with_the_way_to_write_one(asked: object) -> None:
    with pytest.raises(BadRequest, match=r"model-config\.yaml: routes") as refused:
        routes_of({"routes": asked})
    assert "POST /v1/multimodal/" in refused.value.hint


@pytest.mark.parametrize(
    "path",
    ["/", "/predictions", "/predictions/m", "/models/", "/ping", "/ping/more", "/v2/models/m/infer", "/v1/models/m"],
)
def test_the_servers_own_paths_are_refused(path: str) -> None:
    with pytest.raises(BadRequest, match="a path of the server's own"):
        routes_of({"routes": [f"POST {path}"]})


@pytest.mark.parametrize("path", ["/v1/multimodal", "/pings", "/v3", "/v1", "/predictions-of-mine"])
def test_what_only_looks_like_one_of_the_servers_own_is_free(path: str) -> None:
    assert routes_of({"routes": [f"POST {path}"]}) == (Route("POST", path),)


def test_every_route_of_the_server_is_one_of_its_own() -> None:
    listed = Served().ask("GET", "/").json["routes"]
    paths = {route["path"] for route in listed} | {endpoint.path for endpoint in LANES}

    assert len(paths) > 8
    for path in {*paths, "/token"}:
        for method in METHODS:
            with pytest.raises(BadRequest, match="a path of the server's own"):
                routes_of({"routes": [f"{method} {re.sub(r'{.*?}', 'x', path)}"]})
