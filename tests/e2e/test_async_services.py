"""A service with ``async def handle``: its requests run beside each other in one worker."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from live import PATIENCE, LiveServer, make_archive, serving

SERVICE = """
import asyncio
import os


class Meeting:
    async def initialize(self, context):
        self.loop = asyncio.get_running_loop()
        self.waiting, self.events, self.cancelled = [], {}, []

    async def handle(self, data, context):
        assert asyncio.get_running_loop() is self.loop
        return [await self.one(row["body"], context) for row in data]

    async def one(self, body, context):
        if "wait" in body:
            self.events[body["wait"]] = asyncio.Event()
            self.waiting.append(body["wait"])
            try:
                await self.events[body["wait"]].wait()
            except asyncio.CancelledError:
                self.cancelled.append(body["wait"])
                raise
            finally:
                self.waiting.remove(body["wait"])
        await asyncio.sleep(body.get("sleep", 0))
        if "set" in body:
            self.events[body["set"]].set()
        if "raise" in body:
            raise ValueError(body["raise"])
        if "exit" in body:
            os._exit(body["exit"])
        for number in range(body.get("pieces", 0)):
            context.send_intermediate([f"{number} "])
            await asyncio.sleep(0)
        context.set_response_header(0, "x-header", str(context.get_request_header(0, "x-header")))
        return body.get("answer", {"waiting": self.waiting, "cancelled": self.cancelled})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = tmp_path_factory.mktemp("async") / "store"
    make_archive(store, "meeting", SERVICE)
    make_archive(store, "hasty", SERVICE, config={"responseTimeout": 1})
    make_archive(store, "pairs", SERVICE, config={"batchSize": 2, "maxBatchDelay": 5000})
    make_archive(store, "leaving", SERVICE)
    with serving(store, "meeting,hasty,pairs,leaving") as running:
        yield running


@contextmanager
def waiting(server: LiveServer, model: str, name: str) -> Iterator[ThreadPoolExecutor]:
    """Have a request wait in the service for the length of a block; the pool's first future is its answer."""
    with ThreadPoolExecutor(1) as pool:
        pool.asked = pool.submit(server.predict, model, {"wait": name})  # type: ignore[attr-defined]
        server.until(f"{name} waits", lambda: name in server.predict(model, {}).json()["waiting"])
        yield pool


def answer_of(pool: ThreadPoolExecutor) -> httpx.Response:
    found: httpx.Response = pool.asked.result(PATIENCE)  # type: ignore[attr-defined]
    return found


def test_a_later_request_overtakes(server: LiveServer) -> None:
    with waiting(server, "meeting", "first") as pool:
        assert server.predict("meeting", {"answer": "second"}).text == "second"
        server.predict("meeting", {"set": "first"})
        assert answer_of(pool).status_code == 200
    assert len(server.worker_pids("meeting")) == 1


def test_each_request_has_a_context_of_its_own(server: LiveServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(server.predict, "meeting", json={"pieces": 0}, headers={"x-header": str(number)})
            for number in range(40)
        ]
        assert [one.result().headers["x-header"] for one in asked] == [str(number) for number in range(40)]


def test_an_exception_is_the_answer_of_its_request_alone(server: LiveServer) -> None:
    with waiting(server, "meeting", "calm") as pool:
        failed = server.predict("meeting", {"raise": "no"})
        assert (failed.status_code, failed.json()["type"]) == (500, "HandlerFault")
        server.predict("meeting", {"set": "calm"})
        assert answer_of(pool).status_code == 200


def test_pieces_reach_their_own_clients(server: LiveServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.predict, "meeting", {"pieces": 3, "answer": f"end {at}"}) for at in range(8)]
        assert [one.result().text for one in asked] == [f"0 1 2 end {at}" for at in range(8)]


def test_a_client_that_leaves_ends_its_request(server: LiveServer) -> None:
    with httpx.Client(timeout=PATIENCE) as leaving, waiting(server, "meeting", "staying") as pool:
        with pytest.raises(httpx.ReadTimeout):
            leaving.post(f"{server.inference}/predictions/meeting", json={"wait": "gone"}, timeout=0.3)
        server.until("it was cancelled", lambda: "gone" in server.predict("meeting", {}).json()["cancelled"])
        server.predict("meeting", {"set": "staying"})
        assert answer_of(pool).status_code == 200


def test_a_request_that_takes_too_long_ends_alone(server: LiveServer) -> None:
    pid = server.worker_pids("hasty")
    late = server.predict("hasty", {"wait": "for ever"})
    assert (late.status_code, late.json()["type"]) == (504, "WorkerSilent")
    assert "response timeout of 1 s" in late.json()["message"]
    server.until("it was cancelled", lambda: server.predict("hasty", {}).json()["cancelled"] == ["for ever"])
    assert server.worker_pids("hasty") == pid


def test_batches_are_formed_as_for_others(server: LiveServer) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.predict, "pairs", {"answer": name}) for name in "ab"]
        assert sorted(one.result().text for one in asked) == ["a", "b"]
    answered = server.client.get(f"{server.metrics}/metrics").text
    assert 'marserve_batch_size_sum{model="pairs",version="1.0"} 2.0' in answered
    assert 'marserve_batch_size_count{model="pairs",version="1.0"} 1.0' in answered


def test_large_bodies_in_both_directions(server: LiveServer) -> None:
    large = "x" * 1_000_000
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.predict, "meeting", {"answer": f"{at}{large}"}) for at in range(8)]
        assert [one.result().text for one in asked] == [f"{at}{large}" for at in range(8)]


def test_who_dies_answers_for_all_that_ran(server: LiveServer) -> None:
    with waiting(server, "meeting", "bystander") as pool:
        assert server.predict("meeting", {"exit": 3}).json()["type"] == "WorkerDied"
        assert answer_of(pool).json()["type"] == "WorkerDied"
    assert server.predict("meeting", {"answer": "again"}).text == "again"


def test_unregistering_waits_for_the_answers(server: LiveServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.predict, "leaving", {"sleep": 0.5, "answer": "done"})
        server.until("it runs", lambda: server.describe("leaving")["workers"][0]["inFlightBatches"] == 1)
        assert server.manage("DELETE", "/models/leaving").status_code == 200
        assert asked.result().text == "done"
