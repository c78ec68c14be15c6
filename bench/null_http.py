"""Measures the connection class: a null lane beside bare httptools protocols, by wrk on the same machine.

``python bench/null_http.py`` prints requests a second, the CPU that the server spends on each, and how near both
come to the floor, at 1, 8 and 64 connections. Two floors: *bare* answers each message without looking at it;
*reading* keeps target, headers and body, as any server must. The CPU hardly depends on what else the machine does,
the requests a second do. Rounds alternate between the servers, and the best of each is taken: neighbours slow it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httptools
import psutil
import uvloop

from marserve.config.address import Address
from marserve.doors.http.connection import Exchange, Lane, Limits
from marserve.doors.http.listener import Listener

BODY = b'{"next_number": "FizBuz"}'
HEADERS = b"content-type: application/json\r\nx-request-id: 0123456789abcdef\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n" + HEADERS + b"content-length: %d\r\nconnection: keep-alive\r\n\r\n" % len(BODY) + BODY
SCRIPT = """
wrk.method = "POST"
wrk.body = '{"input.1": 14}'
wrk.headers["Content-Type"] = "application/json"
"""


class Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write
        self.feed = httptools.HttpRequestParser(self).feed_data

    def data_received(self, data: bytes) -> None:
        self.feed(data)

    def on_message_complete(self) -> None:
        self.write(ANSWER)


class Reading(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.headers, self.pieces = b"", [], []

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url, self.headers, self.pieces = url, [], []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.parser.should_keep_alive():
            self.transport.write(ANSWER)


class NullLane:
    max_body = 1 << 20

    def admit(self, exchange: Exchange) -> bool:
        return True

    def accept(self, exchange: Exchange) -> None:
        exchange.respond(200, b"OK", HEADERS, BODY)

    def gone(self, exchange: Exchange) -> None:
        pass


class NullApplication:
    def __init__(self) -> None:
        self.null = NullLane()

    def lane(self, method: bytes, target: bytes) -> Lane:
        return self.null

    async def asgi(self, *_: object) -> None:
        raise AssertionError("everything takes the fast lane")

    def refuse(self, status: int, message: str) -> tuple[bytes, bytes]:
        return b"", message.encode()

    def refused(self, exchange: Exchange, status: int) -> None:
        pass


async def serve(kind: str) -> None:
    if kind == "marserve":
        print(
            await Listener(NullApplication(), Limits(), name="bench").open(Address("http", "127.0.0.1", 0)),
            flush=True,
        )
    else:
        protocol: Callable[[], asyncio.Protocol] = {"bare": Bare, "reading": Reading}[kind]
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, backlog=2048)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


def measure(server: psutil.Process, url: str, connections: int, seconds: int, script: str) -> tuple[float, float]:
    """Return requests a second, and the microseconds of CPU that the server spent on each."""
    before = sum(server.cpu_times()[:2])
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, f"{url}/predictions/fizbuz_package"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in report, report
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", report), re.search(r"(\d+) requests in", report)
    assert rate is not None, report
    assert count is not None, report
    return float(rate[1]), (sum(server.cpu_times()[:2]) - before) / int(count[1]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=["bare", "reading", "marserve"], help="only serve; for profilers")
    parser.add_argument("--seconds", type=int, default=5, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 8, 64])
    options = parser.parse_args()
    if options.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options.serve))
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; its package is called wrk.")
    kinds = ["bare", "reading", "marserve"]
    servers = {
        kind: subprocess.Popen([sys.executable, __file__, "--serve", kind], stdout=subprocess.PIPE, text=True)
        for kind in kinds
    }
    try:
        urls = {kind: server.stdout.readline().strip() for kind, server in servers.items() if server.stdout}
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "post.lua")
            script.write_text(SCRIPT)
            print(
                f"{'connections':11}  {'server':8}  {'rps':>8}  {'CPU us':>6}  {'rps/bare':>8}  {'rps/reading':>11}",
                end="",
            )
            print(f"  {'CPU bare/':>9}  {'CPU reading/':>12}")
            for connections in options.connections:
                rounds = [
                    [
                        measure(
                            psutil.Process(servers[kind].pid), urls[kind], connections, options.seconds, str(script)
                        )
                        for kind in kinds
                    ]
                    for _ in range(options.rounds)
                ]
                best = [
                    (max(rps for rps, _ in column), min(cpu for _, cpu in column))
                    for column in zip(*rounds, strict=True)
                ]
                for kind, (rps, cpu) in zip(kinds, best, strict=True):
                    ratios = [rps / best[0][0], rps / best[1][0], best[0][1] / cpu, best[1][1] / cpu]
                    shown = "  ".join(
                        f"{ratio:{width}.2f}" for ratio, width in zip(ratios, (8, 11, 9, 12), strict=True)
                    )
                    print(f"{connections:11}  {kind:8}  {rps:8,.0f}  {cpu:6.2f}  {shown}", flush=True)
    finally:
        for server in servers.values():
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
