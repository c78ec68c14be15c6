"""Routes of archives at the doors: they count from one request to the next, also where heads are remembered."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from door_caller import Caller
from http_fakes import get, post
from served_fakes import FakeVersion, Served, archive_of

from marserve.doors.auth import Keys
from marserve.models.model import VersionConfig
from marserve.models.registry import Registry
from marserve.models.routes import routes_of
from marserve.planes.inference import InferencePlane


def version(name: str, *routes: str, number: str = "1.0") -> FakeVersion:
    return FakeVersion(
        name, number, archive_of(f"{name}.mar", number), VersionConfig(routes=routes_of({"routes": list(routes)}))
    )


class NamingPlane(InferencePlane):
    """Answers each job at once, with the name of its model and version."""

    def job(self, name, version, kind, meta, parts, size, reply, arrived):  # type: ignore[no-untyped-def]
        found = self._registry.find(name, version)
        return SimpleNamespace(id=7, reply=reply, text=f"{found.name} {found.version}".encode())

    def start(self, job) -> None:  # type: ignore[no-untyped-def]
        job.reply.answer(200, b"OK", (), job.text)


def calling(keys: Keys | None = None) -> Caller:
    return Caller(NamingPlane(Registry()), keys)


def test_a_route_asks_the_default_version_of_its_model() -> None:
    caller = calling()
    caller.registry.add(version("m", "POST /x/y/"))
    caller.registry.add(version("m", number="2.0"))

    assert [caller.ask()[1] for _ in range(3)] == [b"m 1.0"] * 3
    assert len(caller.heads.known) == 1

    caller.registry.set_default("m", "2.0")
    assert caller.ask() == (200, b"m 2.0")


@pytest.mark.parametrize("target", [b"/x/y", b"/x/y/", b"/x/y//", b"/x/y?a=b", b"/x/%79"])
def test_slashes_at_the_end_the_query_and_escapes_make_no_difference(target: bytes) -> None:
    caller = calling()
    caller.registry.add(version("m", "POST /x/y"))

    assert caller.ask(post(target, b"{}")) == (200, b"m 1.0")


@pytest.mark.parametrize(
    ("method", "target"),
    [(b"GET", b"/x/y"), (b"OPTIONS", b"/x/y"), (b"post", b"/x/y"), (b"POST", b"/x"), (b"POST", b"/x/y/z")],
)
def test_another_method_or_path_is_no_route(method: bytes, target: bytes) -> None:
    caller = calling()
    caller.registry.add(version("m", "POST /x/y"))

    assert caller.door.lane(method, target) is None


def test_a_route_that_comes_counts_at_once_although_its_path_was_asked_before() -> None:
    caller = calling()
    assert caller.door.lane(b"POST", b"/x/y") is None

    caller.registry.add(version("m", "POST /x/y"))

    assert caller.ask() == (200, b"m 1.0")


def test_a_route_that_goes_is_not_found_although_its_head_is_known_and_another_model_may_have_it() -> None:
    caller = calling()
    caller.registry.add(version("m", "POST /x/y"))
    caller.ask()
    assert caller.heads.known

    caller.registry.remove("m", None)
    status, body = caller.ask()
    assert (status, b"There is no /x/y" in body) == (404, True)
    assert caller.door.lane(b"POST", b"/x/y") is None

    caller.registry.add(version("other", "POST /x/y"))
    assert caller.ask() == (200, b"other 1.0")


def test_two_methods_of_a_path_may_be_two_models() -> None:
    caller = calling()
    caller.registry.add(version("m", "POST /x/y"))
    caller.registry.add(version("n", "GET /x/y"))

    for _ in range(2):
        assert caller.ask() == (200, b"m 1.0")
        assert caller.ask(get(b"/x/y")) == (200, b"n 1.0")


def test_a_route_asks_for_the_key_of_predictions() -> None:
    keys = Keys(3600, lambda _: None)
    keys.publish()
    caller = calling(keys)
    caller.registry.add(version("m", "POST /x/y"))

    assert caller.ask()[0] == 401
    assert caller.ask(post(b"/x/y", b"{}", b"Authorization: " + keys["inference"].header)) == (200, b"m 1.0")


# What the other doors tell of routes


@pytest.fixture
def served() -> Served:
    made = Served()
    made.registry.add(version("m", "POST /x/y/", "GET /x/y"))
    made.add("plain")
    return made


def test_another_method_is_told_which_ones_there_are(served: Served) -> None:
    answer = served.ask("DELETE", "/x/y/")

    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert served.ask("DELETE", "/x").status == 404


def test_an_address_without_predictions_has_no_routes() -> None:
    made = Served(doors=("management",))
    made.registry.add(version("m", "POST /x"))

    assert made.ask("GET", "/x").status == 404


def test_a_description_names_the_routes_of_its_archive(served: Served) -> None:
    assert served.ask("GET", "/models/m").json[0]["routes"] == ["POST /x/y/", "GET /x/y"]
    assert "routes" not in served.ask("GET", "/models/plain").json[0]


def test_the_openapi_document_has_the_routes_with_the_schemas_of_the_default_version(served: Served) -> None:
    for target in ("/api-description", "/predictions/m"):
        paths = served.ask("GET" if target == "/api-description" else "OPTIONS", target).json["paths"]
        assert paths["/x/y/"]["post"] == paths["/predictions/m"]["post"]
        assert set(paths["/x/y"]) == {"get"}
    assert "/x/y/" not in served.ask("OPTIONS", "/predictions/plain").json["paths"]
