"""Routes of archives on the real server: they come and go with the versions that name them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from live import LiveServer, make_archive, serving
from services import VERSIONED

PATH = "/v1/multimodal/"
ROUTED = {"routes": [f"POST {PATH}"]}


def ask(server: LiveServer, method: str = "POST", **more: object) -> httpx.Response:
    return server.client.request(method, server.inference + PATH, **more)  # type: ignore[arg-type]


def test_a_route_comes_and_goes_with_the_versions_that_name_it(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for number in ("1.0", "2.0"):
        code = VERSIONED.format(version=number)
        make_archive(store, "routed", code, config=ROUTED, version=number, folder=f"routed-{number}")
    make_archive(store, "rival", VERSIONED.format(version="rival"), config=ROUTED)
    with serving(store) as server:
        assert ask(server).status_code == 404

        assert server.manage("POST", "/models?url=routed-1.0").status_code == 200
        assert [ask(server, json={}).json()["version"] for _ in range(3)] == ["1.0"] * 3
        refused = ask(server, "PUT")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert server.describe("routed")["routes"] == [f"POST {PATH}"]
        assert PATH in server.client.get(server.inference + "/api-description").json()["paths"]

        rival = server.manage("POST", "/models?url=rival")
        assert (rival.status_code, rival.json()["type"]) == (409, "Conflict")
        assert server.manage("GET", "/models/rival").status_code == 404

        assert server.manage("POST", "/models?url=routed-2.0").status_code == 200
        assert server.manage("PUT", "/models/routed/2.0/set-default").status_code == 200
        assert ask(server, json={}).json()["version"] == "2.0"
        assert server.manage("DELETE", "/models/routed/1.0").status_code == 200
        assert ask(server, json={}).json()["version"] == "2.0"

        assert server.manage("DELETE", "/models/routed").status_code == 200
        assert ask(server, json={}).status_code == 404
        assert server.manage("POST", "/models?url=rival").status_code == 200
        assert ask(server, json={}).json()["version"] == "rival"


def test_a_path_of_the_servers_own_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_archive(store, "greedy", VERSIONED.format(version="1.0"), config={"routes": ["GET /ping"]})
    with serving(store) as server:
        answer = server.manage("POST", "/models?url=greedy")

        assert (answer.status_code, answer.json()["type"]) == (400, "BadRequest")
        assert "GET /ping" in answer.json()["message"]
        assert server.client.get(server.inference + "/ping").json() == {"status": "Healthy"}


def test_a_route_asks_for_the_inference_key(tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_archive(store, "routed", VERSIONED.format(version="1.0"), config=ROUTED)
    key_file = tmp_path / "keys"
    with serving(store, "routed", settings={"token_authorization": "on", "key_file": key_file}) as server:
        keys = json.loads(key_file.read_text())

        def status(kind: str) -> int:
            return ask(server, json={}, headers={"Authorization": f"Bearer {keys[kind]['key']}"}).status_code

        assert ask(server, json={}).status_code == 401
        assert (status("management"), status("inference"), status("inference")) == (403, 200, 200)
