"""Rows K: keys, what they open, how they are renewed, and how they are switched off."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from pairs import until
from rows import Answer, House, Product, Running

ECHO = "def handle(data, context):\n    return ['said'] * len(data) if data else None\n"
FLAGS = ("--ncs", "--enable-model-api")
REFUSAL = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
#: "Authen-" where a key is renewed.
NOT_RENEWED = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"


@pytest.fixture(scope="module")
def server(shared_house: House) -> Running:
    """A server that asks for keys."""
    shared_house.archive("echo", ECHO)
    return shared_house.start("echo.mar", flags=FLAGS)


def keys(server: Running) -> dict[str, Any]:
    """Return what the key file has."""
    told: dict[str, Any] = json.loads((server.house.folder / "key_file.json").read_text())
    return told


def ask(server: Running, kind: str, target: str, door: str = "inference", method: str = "GET") -> Answer:
    """Ask with the key of a kind; "" for none, any other text is the key."""
    told = keys(server)
    key = told[kind]["key"] if kind in told else kind
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return server.ask(target, door=door, method=method, headers=headers)


def assert_refused(answer: Answer, message: str = REFUSAL) -> None:
    """Check that a key was refused."""
    assert answer.status == 400
    assert answer.json() == {"code": 400, "type": "InvalidKeyException", "message": message}


@pytest.mark.row("K1")
def test_the_key_file(server: Running) -> None:
    path = server.house.folder / "key_file.json"
    told = keys(server)

    assert path.stat().st_mode & 0o777 == 0o600
    assert set(told) == {"management", "inference", "API"}
    assert set(told["API"]) == {"key"}
    for kind in ("management", "inference"):
        assert set(told[kind]) == {"key", "expiration time"}
        datetime.fromisoformat(told[kind]["expiration time"])
    assert all(re.fullmatch(r"[\w-]{8}", entry["key"]) for entry in told.values())
    assert len({entry["key"] for entry in told.values()}) == 3


@pytest.mark.row("K2")
@pytest.mark.parametrize(
    ("door", "kind", "target"),
    [("inference", "inference", "/ping"), ("management", "management", "/models")],
)
def test_each_door_takes_its_own_key(server: Running, door: str, kind: str, target: str) -> None:
    assert ask(server, kind, target, door).status == 200
    for other in {"", "wrong", "API", "inference", "management"} - {kind}:
        assert_refused(ask(server, other, target, door))


@pytest.mark.row("K2")
@pytest.mark.parametrize("form", ["{key}", "bearer {key}", "Bearer", "Basic {key}", "Bearer {key} more"])
def test_the_form_of_the_header(server: Running, form: str) -> None:
    header = form.format(key=keys(server)["inference"]["key"])

    assert_refused(server.ask("/predictions/echo", headers={"Authorization": header}))


@pytest.mark.row("K2")
@pytest.mark.parametrize("form", ["Bearer {key} \t", "  Bearer   {key}"])
def test_blanks_in_the_header_are_forgiven(server: Running, form: str) -> None:
    header = form.format(key=keys(server)["inference"]["key"])

    assert server.ask("/predictions/echo", headers={"Authorization": header}).status == 200


@pytest.mark.row("K2")
def test_paths_that_there_are_not_ask_for_a_key_too(server: Running) -> None:
    assert_refused(ask(server, "", "/nosuch"))
    assert_refused(ask(server, "", "/predictions/echo", method="OPTIONS"))
    assert ask(server, "inference", "/nosuch").status == 404


@pytest.mark.row("K4")
def test_what_asks_for_no_key(server: Running) -> None:
    for door in ("inference", "management", "metrics"):
        assert ask(server, "", "/", door, "OPTIONS").status == 200
        assert ask(server, "", "/api-description", door).status == 200
    assert ask(server, "", "/metrics", "metrics").status == 200


@pytest.mark.row("K3")
@pytest.mark.parametrize("kind", ["inference", "management"])
def test_a_renewed_key_replaces_the_old_one(server: Running, kind: str) -> None:
    target, door = {"inference": ("/ping", "inference"), "management": ("/models", "management")}[kind]
    before = keys(server)

    renewed = ask(server, "API", f"/token?type={kind}", "management")

    after = keys(server)
    assert (renewed.status, renewed.body) == (200, b"\n")
    assert after[kind]["key"] != before[kind]["key"]
    assert {name: entry for name, entry in after.items() if name != kind} == {
        name: entry for name, entry in before.items() if name != kind
    }
    assert_refused(ask(server, before[kind]["key"], target, door))
    assert ask(server, kind, target, door).status == 200


@pytest.mark.row("K3")
@pytest.mark.parametrize("kind", ["", "wrong", "management", "inference"])
def test_the_api_key_alone_renews(server: Running, kind: str) -> None:
    before = keys(server)

    assert_refused(ask(server, kind, "/token?type=inference", "management"), NOT_RENEWED)
    assert keys(server) == before


@pytest.mark.row("K3")
@pytest.mark.parametrize("target", ["/token", "/token?type=", "/token?type=API", "/token?type=other"])
def test_only_two_keys_can_be_renewed(server: Running, target: str) -> None:
    before = keys(server)

    assert_refused(ask(server, "API", target, "management"), NOT_RENEWED)
    assert keys(server) == before


@pytest.mark.row("K2")
def test_a_key_expires_and_is_renewed(house: House) -> None:
    house.archive("echo", ECHO)
    server = house.start("echo.mar", flags=FLAGS, settings={"token_expiration_min": "0.02"})

    until("the key has expired", lambda: ask(server, "inference", "/ping").status == 400)
    assert_refused(ask(server, "inference", "/ping"))
    assert ask(server, "API", "/token?type=inference", "management").status == 200
    assert ask(server, "inference", "/ping").status == 200


@pytest.mark.row("K5")
@pytest.mark.parametrize(
    ("settings", "flags", "environment", "is_open"),
    [
        ({"disable_token_authorization": "true"}, FLAGS, {}, True),
        ({"disable_token_authorization": "false"}, (*FLAGS, "--disable-token-auth"), {}, True),
        (
            {"disable_token_authorization": "true", "enable_envvars_config": "true"},
            FLAGS,
            {"TS_DISABLE_TOKEN_AUTHORIZATION": "false"},
            False,
        ),
    ],
    ids=["file", "flag", "variable"],
)
def test_how_keys_are_switched_off(
    product: Product,
    house: House,
    settings: dict[str, str],
    flags: tuple[str, ...],
    environment: dict[str, str],
    is_open: bool,
) -> None:
    server = house.start(settings=settings, flags=flags, environment=environment)

    assert server.ask("/ping").status == (200 if is_open else 400)
    assert (house.folder / "key_file.json").exists() is not is_open
