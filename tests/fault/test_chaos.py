"""Everything at once against a real server: kills, hangs, scaling, swaps, lies, floods and rude clients, under load.

What is held against it: each request gets exactly one answer and it is its own; an answer that is an error says why,
and only who was running on a worker that was killed may hear of a death; afterwards nothing is left and all serves.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from live import PATIENCE, LiveServer, all_gone, descendants, launched, make_archive, serving
from services import CHAOTIC

#: A batch may hold so many requests: a worker that is killed may cost so many an answer.
BATCH = 8
#: Bytes of a body or an answer that goes through shared memory.
LARGE = 400_000


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    body: bytes

    @property
    def kind(self) -> str:
        """The kind of an error, "" for an answer that is none."""
        return "" if self.status == 200 else str(json.loads(self.body)["type"])


#: A request that is over: model, body, answer.
Done = tuple[str, dict[str, object], Answer]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same service under several ways of serving it."""
    store = tmp_path_factory.mktemp("chaos") / "store"
    common = {"jobQueueSize": 10_000}
    pair = {"minWorkers": 2, "maxWorkers": 2}
    make_archive(store, "single", CHAOTIC, config=common)
    make_archive(store, "pair", CHAOTIC, config={**common, **pair})
    make_archive(store, "batched", CHAOTIC, config={**common, **pair, "batchSize": BATCH})
    make_archive(store, "delayed", CHAOTIC, config={**common, "batchSize": BATCH, "maxBatchDelay": 5})
    make_archive(store, "hasty", CHAOTIC, config={**common, **pair, "responseTimeout": 0.3})
    for version in ("1.0", "2.0"):
        make_archive(store, "swapped", CHAOTIC, config=common, version=version, folder=f"swapped-{version}")
    return store


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[LiveServer]:
    """One server for all of it: what one test leaves behind, another would notice."""
    with serving(store, "single,pair,batched,delayed,hasty", settings={"access_log": "false"}) as running:
        yield running


# The clients


class Client:
    """One keep-alive connection that sends requests and reads their answers, in turn or pipelined."""

    def __init__(self, base: str) -> None:
        host, port = base.removeprefix("http://").split(":")
        self._place = (host, int(port))
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(*self._place)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, model: str, body: dict[str, object]) -> None:
        """Send a request and wait for nothing."""
        self._writer.write(request(model, body))
        await self._writer.drain()

    async def receive(self) -> Answer | None:
        """Return the next answer; None when the server has closed the connection instead of giving one."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise  # half an answer
            return None
        except ConnectionError:
            return None
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return Answer(int(head.split(b" ", 2)[1]), await self._reader.readexactly(length))

    async def ask(self, model: str, body: dict[str, object]) -> Answer | None:
        """Send a request and return its answer."""
        await self.send(model, body)
        return await self.receive()


def request(model: str, body: dict[str, object]) -> bytes:
    """Return a request as bytes."""
    content = json.dumps(body).encode()
    head = f"POST /predictions/{model} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def check_own(body: dict[str, object], answer: Answer) -> None:
    """Check that an answer without an error is that of its own request, whole."""
    told = json.loads(answer.body)
    assert told["token"] == body["token"]
    assert told["pad"] == len(str(body.get("pad", "")))
    assert told["more"] == "y" * int(str(body.get("size", 0)))


def draw_body(chance: random.Random, token: str, mischief: tuple[str, ...]) -> dict[str, object]:
    """Return a request: mostly small, sometimes large there or back, sometimes slow, sometimes up to mischief."""
    body: dict[str, object] = {"token": token}
    what = chance.random()
    if what < 0.05:
        body["pad"] = "x" * LARGE
    elif what < 0.1:
        body["size"] = LARGE
    elif what < 0.2:
        body["sleep"] = 0.01
    elif what < 0.26 and mischief:
        body[chance.choice(mischief)] = 7
    return body


async def load(
    server: LiveServer,
    models: list[str],
    *,
    clients: int,
    count: int,
    seed: int,
    mischief: tuple[str, ...] = (),
    done: list[Done] | None = None,
) -> list[Done]:
    """Let each client send so many requests, up to four of them pipelined; return all with answers, in ``done``."""
    done = [] if done is None else done

    async def one(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        async with Client(server.inference) as client:
            left = count
            while left:
                model = chance.choice(models)
                depth = min(left, chance.choice((1, 1, 4)))
                bodies = [draw_body(chance, f"{seed}-{number}-{left - at}", mischief) for at in range(depth)]
                for body in bodies:
                    await client.send(model, body)
                for body in bodies:
                    answer = await client.receive()
                    assert answer is not None, "the connection was closed instead of an answer"
                    done.append((model, body, answer))
                left -= depth

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(one(number))
    assert len({body["token"] for _, body, _ in done}) == len(done) == clients * count
    return done


async def during(work: Awaitable[list[Done]], act: Callable[[int], int]) -> Outcome:
    """Call ``act`` again and again as long as ``work`` lasts; return what became of it all.

    ``act`` gets the number of the call, runs in a thread of its own, and returns how many workers it has hit.
    """
    running = asyncio.ensure_future(work)
    hits = calls = 0
    while not running.done():
        hits += await asyncio.to_thread(act, calls)
        calls += 1
    assert calls, "the load was over before anything happened"
    return Outcome(await running, hits)


class Outcome(NamedTuple):
    """Requests with their answers, and how many workers were hit meanwhile."""

    done: list[Done]
    hits: int

    def kinds(self) -> Counter[str]:
        """Check every answer that is no error; return how many errors there are of each kind."""
        for _, body, answer in self.done:
            if answer.status == 200:
                check_own(body, answer)
            else:
                assert json.loads(answer.body)["message"]
        return Counter(answer.kind for _, _, answer in self.done if answer.kind)


def at_rest(server: LiveServer, *models: str) -> None:
    """Check that models serve, with nothing queued and nothing in flight."""
    for model in models:
        answer = server.predict(model, {"token": "rest"})
        assert answer.status_code == 200, answer.text

        def is_empty(name: str = model) -> bool:
            told = server.describe(name)
            busy = sum(worker["inFlightBatches"] for worker in told["workers"])
            return told["jobQueueStatus"]["pendingRequests"] == 0 and busy == 0

        server.until(f"{model} has nothing to do", is_empty)


def scale(server: LiveServer, model: str, workers: int) -> None:
    """Set a model's workers; also ends the waits between restarts."""
    path = f"/models/{model}?min_worker={workers}&max_worker={workers}&synchronous=true"
    answer = server.manage("PUT", path)
    assert answer.status_code == 200, answer.text


def hit(pids: list[int], number: signal.Signals) -> int:
    """Send a signal to processes, of which some may be gone already; return how many were not."""
    count = 0
    for pid in pids:
        assert pid > 1, "this would reach a whole process group, or every process"
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            count += 1
    return count


def descriptors(server: LiveServer) -> int:
    """Return how many file descriptors the server has open."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def hang_up(server: LiveServer) -> None:
    """Close the connections of the server's own client, so that they are not counted."""
    server.client.close()
    server.client = httpx.Client(timeout=PATIENCE)


# Everything at once


def test_killed_workers_and_wicked_services_under_load(server: LiveServer) -> None:
    """Only what ran on a worker that ended is answered with its death; a batch is one fate."""
    models = ["pair", "batched", "delayed"]
    at_rest(server, *models)
    hang_up(server)
    processes, open_before = len(descendants(server.process.pid)), descriptors(server)
    memory = psutil.Process(server.process.pid).memory_info().rss

    def kill(number: int) -> int:
        count = hit(server.worker_pids(models[number % len(models)])[:1], signal.SIGKILL)
        for model in models:
            scale(server, model, 1 if model == "delayed" else 2)
        return count

    mischief = ("raise", "short", "raise", "short", "exit")
    outcome = asyncio.run(during(load(server, models, clients=6, count=60, seed=1, mischief=mischief), kill))
    kinds = outcome.kinds()
    assert set(kinds) <= {"HandlerFault", "WorkerDied"}
    exits = sum("exit" in body for _, body, _ in outcome.done)
    assert kinds["WorkerDied"] <= outcome.hits * BATCH + exits * BATCH
    for model, body, answer in outcome.done:
        if answer.kind == "WorkerDied":
            assert "SIGKILL" in answer.body.decode() or "exit code 7" in answer.body.decode()
        if answer.kind == "HandlerFault" and model == "pair":
            assert "raise" in body or "short" in body
        if model == "pair" and ("raise" in body or "exit" in body):
            assert answer.status == 500
    for model in models:
        scale(server, model, 1 if model == "delayed" else 2)
    at_rest(server, *models)
    hang_up(server)
    server.until("no process is left over", lambda: len(descendants(server.process.pid)) == processes)
    server.until("no descriptor is left open", lambda: descriptors(server) <= open_before)
    assert psutil.Process(server.process.pid).memory_info().rss < memory + (200 << 20)


def test_workers_that_hang_under_load(server: LiveServer) -> None:
    """A stopped worker is ended; what it had not begun is answered by others."""

    def is_ended(pids: list[int]) -> bool:
        """Look, and give both workers something to do: the load may be over before the stopped one gets any of it."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: server.predict("hasty", {"token": "more", "sleep": 0.2}), range(2)))
        return not set(pids) & set(server.worker_pids("hasty"))

    def hang(number: int) -> int:
        pids = server.worker_pids("hasty")[:1]
        count = hit(pids, signal.SIGSTOP)
        server.until("it is ended", lambda: is_ended(pids))
        scale(server, "hasty", 2)
        return count

    outcome = asyncio.run(during(load(server, ["hasty"], clients=4, count=150, seed=2), hang))
    kinds = outcome.kinds()
    assert set(kinds) <= {"WorkerSilent"}
    assert kinds["WorkerSilent"] <= outcome.hits
    at_rest(server, "hasty")


def test_scaling_and_swapping_lose_nothing(server: LiveServer) -> None:
    """Not one request fails while workers come and go and versions change places."""
    register = "/models?url=swapped-{}&initial_workers=1&synchronous=true"
    assert server.manage("POST", register.format("1.0")).status_code == 200

    def change(number: int) -> int:
        old, new = ("1.0", "2.0") if number % 2 == 0 else ("2.0", "1.0")
        answers = [
            server.manage("POST", register.format(new)),
            server.manage("PUT", f"/models/swapped/{new}/set-default"),
            server.manage("DELETE", f"/models/swapped/{old}"),
        ]
        assert [answer.status_code for answer in answers] == [200] * 3, [answer.text for answer in answers]
        scale(server, "pair", 1 + number % 3)
        return 0

    outcome = asyncio.run(during(load(server, ["pair", "swapped"], clients=6, count=200, seed=3), change))
    assert not outcome.kinds()
    scale(server, "pair", 2)
    at_rest(server, "pair", "swapped")
    assert server.manage("DELETE", "/models/swapped").status_code == 200


def test_rude_clients_cost_nobody_else_anything(server: LiveServer) -> None:
    """They leave in the head, in the body, while they wait, while they are served, in their answer; or never read."""
    host, port = server.inference.removeprefix("http://").split(":")
    hang_up(server)
    open_before = descriptors(server)

    async def rude(number: int) -> None:
        chance = random.Random(number)
        body: dict[str, object] = {"token": f"rude-{number}", "sleep": 0.02 * chance.random(), "size": LARGE * 4}
        sent = request("pair", body) * chance.choice((1, 3))
        if number % 3 == 0:
            sent = sent[: chance.randrange(1, len(sent))]
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        if number % 3 == 1:
            await reader.read(1)
        elif number % 3 == 2 and chance.random() < 0.5:
            writer.write_eof()
            await reader.read()
        if chance.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()

    async def all_of_them() -> Outcome:
        work = asyncio.ensure_future(load(server, ["pair", "batched"], clients=4, count=120, seed=4))
        async with asyncio.timeout(PATIENCE):
            for start in range(0, 120, 10):
                await asyncio.gather(*(rude(number) for number in range(start, start + 10)))
        return Outcome(await work, 0)

    assert not asyncio.run(all_of_them()).kinds()
    at_rest(server, "pair", "batched")
    hang_up(server)
    server.until("their connections are closed", lambda: descriptors(server) <= open_before)


# The answer that is awaited in place


def test_a_lone_client_whose_worker_dies_stalls_or_answers_at_length(store: Path) -> None:
    """One worker, one client, quick answers: the server waits for them in place, and is surprised there."""
    special: list[tuple[dict[str, object], int]] = [
        ({"kill": 1}, 500),
        ({"sleep": 0.05}, 200),
        ({"size": LARGE}, 200),
    ]

    async def ask(server: LiveServer) -> None:
        async with Client(server.inference) as client:
            for number, (surprise, status) in enumerate(special * 2):
                for quick in range(40):
                    body: dict[str, object] = {"token": f"{number}-{quick}"}
                    answer = await client.ask("single", body)
                    assert answer is not None
                    assert answer.status == 200
                    check_own(body, answer)
                body = {"token": f"{number}", **surprise}
                answer = await client.ask("single", body)
                assert answer is not None
                assert answer.status == status
                if status == 200:
                    check_own(body, answer)
                else:
                    assert answer.kind == "WorkerDied"
                    await asyncio.to_thread(scale, server, "single", 1)

    with serving(store, "single", settings={"access_log": "false"}) as server:
        asyncio.run(ask(server))

        done: list[Done] = []

        def kill(number: int) -> int:
            server.until("some more are answered", lambda: len(done) >= min(600, 60 * (number + 1)))
            count = hit(server.worker_pids("single"), signal.SIGKILL)
            scale(server, "single", 1)
            return count

        outcome = asyncio.run(during(load(server, ["single"], clients=1, count=600, seed=5, done=done), kill))
        kinds = outcome.kinds()
        assert set(kinds) <= {"WorkerDied"}
        assert kinds["WorkerDied"] <= outcome.hits
        at_rest(server, "single")


# The end


def test_a_server_that_is_told_to_end_under_load_answers_what_it_has_accepted(store: Path, tmp_path: Path) -> None:
    """Exit code 0; whoever gets no answer was never run, so may safely ask somebody else."""
    ran = tmp_path / "ran"
    unanswered: list[str] = []
    answered: Counter[int] = Counter()

    async def ask(server: LiveServer, number: int, some: asyncio.Event) -> None:
        async with Client(server.inference) as client:
            for at in range(100_000):
                body: dict[str, object] = {"token": f"{number}-{at}", "sleep": 0.005 * (at % 2)}
                try:
                    answer = await client.ask(("pair", "batched")[number % 2], body)
                except ConnectionError:
                    answer = None
                if answer is None:
                    unanswered.append(str(body["token"]))
                    return
                answered[answer.status] += 1
                if answer.status == 200:
                    check_own(body, answer)
                if at == 5:
                    some.set()

    async def end(server: LiveServer) -> None:
        some = asyncio.Event()
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(ask(server, number, some))
            await some.wait()
            server.signal(signal.SIGTERM)

    with launched(store, "pair,batched", environment={"RAN_FILE": str(ran)}) as server:
        children = descendants(server.wait_until_ready().process.pid)
        asyncio.run(end(server))
        assert server.wait() == 0
        assert all_gone(children)
    assert set(answered) <= {200, 503}
    assert answered[200] > 12
    assert not set(unanswered) & set(ran.read_text().split())


def test_a_second_signal_under_load_leaves_nothing(store: Path) -> None:
    async def ask(server: LiveServer) -> None:
        async with Client(server.inference) as first, Client(server.inference) as second:
            for client in (first, second):
                await client.send("pair", {"token": "long", "sleep": 600})
            await asyncio.to_thread(
                server.until,
                "both run",
                lambda: sum(worker["inFlightBatches"] for worker in server.describe("pair")["workers"]) == 2,
            )
            server.signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait_for_line, "draining")
            server.signal(signal.SIGTERM)
            assert [await client.receive() for client in (first, second)] == [None, None]

    with launched(store, "pair") as server:
        children = descendants(server.wait_until_ready().process.pid)
        asyncio.run(ask(server))
        assert server.wait() == 128 + signal.SIGTERM
        assert all_gone(children)


# Bytes that are no requests

POST = b"POST /predictions/single HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"token": "t"}'
GOOD = POST + b"Content-Length: 14\r\n\r\n" + BODY
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"e\r\n" + BODY + b"\r\n0\r\n\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

#: What is sent, and the statuses that come back. A request behind one whose length is in doubt is never served.
ABUSE: dict[str, tuple[bytes, list[int]]] = {
    "garbage": (b"\x00\xff\xfe\r\n\r\n" * 10, [400]),
    "tls": (bytes.fromhex("16030100c8010000c40303") + b"x" * 200, [400]),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "large header": (POST + b"X: " + b"a" * 200_000 + b"\r\n\r\n", [431]),
    "many headers": (POST + b"".join(b"X%d: y\r\n" % number for number in range(20_000)) + b"\r\n", [431]),
    "long target": (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n", [414]),
    "chunk of no size": (CHUNKED + b"zz\r\n", [400]),
    "chunk of minus one": (CHUNKED + b"-1\r\n", [400]),
    "chunk of any size": (CHUNKED + b"ffffffffffffffffff\r\nabc", [400]),
    "length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + GOOD, [400]),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNK + GOOD, [400]),
    "two lengths": (POST + b"Content-Length: 14\r\nContent-Length: 15\r\n\r\n" + BODY + GOOD, [400]),
    "length of minus one": (POST + b"Content-Length: -1\r\n\r\n" + GOOD, [400]),
    "length of plus one": (POST + b"Content-Length: +14\r\n\r\n" + BODY + GOOD, [400]),
    "length beyond all": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", [400]),
    "body beyond the length": (POST + b"Content-Length: 2\r\n\r\n{}}}" + GOOD, [500, 400]),
    "other coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNK + GOOD, [501]),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNK + GOOD, [400]),
    "blank before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNK + GOOD, [400]),
    "zero byte": (POST + b"X: a\0b\r\n\r\n", [400]),
    "lines without CR": (GOOD.replace(b"\r\n", b"\n"), [400]),
    "expectation": (POST + b"Expect: 100-continue\r\nContent-Length: 14\r\n\r\n" + BODY + GOOD, [100, 200, 200]),
    "other expectation": (POST + b"Expect: a miracle\r\nContent-Length: 14\r\n\r\n" + BODY, [417]),
    "upgrade": ((POST + UPGRADE + b"Content-Length: 14\r\n\r\n" + BODY) * 3, [200] * 3),
    "upgrade in chunks": (POST + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + GOOD, [200, 200]),
    "good, then garbage": (GOOD + b"\x00\x01\r\n\r\n", [200, 400]),
}


def connect(server: LiveServer) -> socket.socket:
    """Return a connection to the inference address."""
    host, port = server.inference.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    client.settimeout(PATIENCE)
    return client


def statuses(client: socket.socket, count: int) -> list[int]:
    """Return the statuses of the answers that come, so many or fewer if the server closes first."""
    received = bytearray()
    while received.count(b"HTTP/1.1 ") < count or not received.endswith((b"}", b"}\n", b"\r\n\r\n")):
        data = client.recv(1 << 20)
        if not data:
            break
        received += data
    return [int(piece[:3]) for piece in bytes(received).split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("what", ABUSE)
def test_bytes_that_are_no_request(server: LiveServer, what: str) -> None:
    sent, expected = ABUSE[what]
    with connect(server) as client:
        try:
            client.sendall(sent)
        except ConnectionError:
            pass  # it was refused before all had been sent
        if expected[-1] != 200:
            client.settimeout(PATIENCE)
            expected_count = 1 << 30  # all that comes until the server closes
        else:
            expected_count = len(expected)
        assert statuses(client, expected_count) == expected
    assert server.predict("single", {"token": "t"}).status_code == 200


@pytest.mark.parametrize("what", ["upgrade", "expectation"])
def test_requests_that_come_byte_by_byte(server: LiveServer, what: str) -> None:
    sent, expected = ABUSE[what]
    with connect(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            client.sendall(sent[at : at + 1])
        assert statuses(client, len(expected)) == expected


def test_ten_thousand_pipelined_requests(server: LiveServer) -> None:
    """More than the server takes at once: it reads on as it answers, and loses none."""
    with connect(server) as client, ThreadPoolExecutor(1) as sender:
        sending = sender.submit(client.sendall, GOOD * 10_000)
        assert statuses(client, 10_000) == [200] * 10_000
        sending.result()


def test_five_hundred_idle_connections(server: LiveServer) -> None:
    idle = [connect(server) for _ in range(500)]
    at_rest(server, "single")
    for client in idle:
        client.close()


# Services that lie, flood and tear


@pytest.mark.parametrize(
    "lie",
    [
        "00112233445566778899aabbccddeeff00",  # no frame at all
        "ffffffff060001000100000000000000",  # an answer that is too long
        "00000000060001000100000000000000",  # an answer without anything in it
        "02000000040000000000000000000000" + "7b7d",  # it has loaded, again
    ],
)
def test_a_worker_that_lies_on_the_wire_is_ended_and_told_about(server: LiveServer, lie: str) -> None:
    """Nothing that it says counts any more: it is not waited for."""
    scale(server, "single", 1)
    answer = server.predict("single", {"token": "t", "lie": lie})
    assert (answer.status_code, answer.json()["type"]) == (500, "WorkerDied")
    assert "broke the rules of the wire" in answer.json()["message"]
    scale(server, "single", 1)
    at_rest(server, "single")


def test_a_worker_that_cuts_its_link(server: LiveServer, tmp_path: Path) -> None:
    scale(server, "single", 1)
    assert server.predict("single", {"token": "t", "cut": 1, "once": str(tmp_path / "once")}).status_code == 200


def test_a_piece_that_http_does_not_allow_costs_its_own_request_alone(server: LiveServer) -> None:
    """It travels with the answers of those before it, which must not go down with it."""
    scale(server, "single", 1)
    pid = server.worker_pids("single")

    async def ask() -> None:
        async with Client(server.inference) as client:
            for number in range(100):  # quick ones: the link learns that it may work ahead
                assert await client.ask("single", {"token": str(number)}) is not None
            for _ in range(10):
                bodies: list[dict[str, object]] = [{"token": str(number)} for number in range(12)]
                bodies[6] |= {"piece": "x", "status": 99}
                for body in bodies:
                    await client.send("single", body)
                answers = [await client.receive() for _ in bodies]
                assert [answer and answer.kind for answer in answers] == [""] * 6 + ["HandlerFault"] + [""] * 5

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert server.worker_pids("single") == pid


@pytest.mark.parametrize("what", ["flood", "daemon"])
def test_a_flood_of_log_lines_holds_nobody_up(server: LiveServer, tmp_path: Path, what: str) -> None:
    """The flood lasts until others have been answered: it would never end if it kept them waiting."""
    scale(server, "single", 1)
    until = tmp_path / "enough"
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(server.predict, "single", {"token": "t", what: str(until)})
        server.wait_for_line("x{99}")
        try:
            for _ in range(20):
                assert server.predict("pair", {"token": "t"}).status_code == 200
            if what == "daemon":
                assert flooding.result().json()["type"] == "WorkerDied"
        finally:
            until.touch()
        assert flooding.result().status_code == (200 if what == "flood" else 500)
    scale(server, "single", 1)
    at_rest(server, "single")


def test_a_line_without_an_end_and_a_closed_log(server: LiveServer) -> None:
    scale(server, "single", 1)
    assert server.predict("single", {"token": "t", "print": 5_000_000}).status_code == 200
    assert server.predict("single", {"token": "t", "close": [1, 2]}).status_code == 200
    at_rest(server, "single")


# What the machine has not got


def test_a_flood_of_connections_takes_no_model_down_for_good(store: Path) -> None:
    """Without descriptors no worker can be started: it is tried again when there are some."""
    most = 64
    start = f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most})); "
    start += "from marserve.cli.main import main; sys.exit(main())"
    with serving(store, "single", command=("python", "-c", start, "start", "--foreground")) as server:
        scale(server, "single", 1)  # opens the connection over which it will be scaled
        flood = [connect(server) for _ in range(most)]
        server.until("no descriptor is left", lambda: descriptors(server) == most)
        assert server.manage("PUT", "/models/single?min_worker=3&max_worker=3").status_code == 202
        server.wait_for_line("No worker process for single:1.0 could be started.*Too many open files")
        for client in flood:
            client.close()
        server.until("descriptors are free again", lambda: descriptors(server) < most // 2)
        server.until("all workers are there", lambda: server.describe("single")["workers"][2:])
        at_rest(server, "single")


def test_a_cache_that_cannot_be_written(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with zipfile.ZipFile(store / "packed.mar", "w") as archive:
        for path in sorted((store / "single").rglob("*")):
            archive.write(path, path.relative_to(store / "single"))
    with serving(store, "single", cache=tmp_path / "file" / "cache") as server:
        answer = server.manage("POST", "/models?url=packed.mar&model_name=packed&initial_workers=1&synchronous=true")
        assert answer.status_code == 200, answer.text
        assert f"cache_folder {tmp_path / 'file' / 'cache'} cannot be used" in server.log
        at_rest(server, "single")


def test_many_registrations_at_once(server: LiveServer) -> None:
    """Each name once, whoever asks first; all of them can be taken out again."""
    names = [f"many{number % 10}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        register = "/models?url=single&model_name={}&initial_workers=0"
        answers = list(pool.map(lambda name: server.manage("POST", register.format(name)), names))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 409: 10}
    for name in set(names):
        assert server.manage("DELETE", f"/models/{name}").status_code == 200
