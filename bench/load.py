"""Puts a load on one address: by ``wrk`` where it is installed, else by a generator of our own on asyncio.

Closed loop: each connection sends its next request when the last one is answered. Both tools give the same
figures: requests answered in the time, median and 99th percentile of the latency, and what went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import cast

_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
#: Seconds until an answer counts as missing.
TIMEOUT = 5.0


class MeasureError(Exception):
    """Something did not start, did not answer or answered wrongly; the message says what."""


@dataclass(frozen=True)
class Target:
    """What gets the load: ``POST path`` with a body, or ``@`` and a file that holds it, on a port of this machine."""

    port: int
    path: str
    body: str
    content_type: str = "application/json"

    @property
    def body_bytes(self) -> bytes:
        """The body as it is sent."""
        return Path(self.body[1:]).read_bytes() if self.body.startswith("@") else self.body.encode()


@dataclass(frozen=True)
class Findings:
    """What a load found.

    Attributes:
        requests: answers within the time, good and bad.
        seconds: how long it took.
        p50, p90, p99: latency, seconds.
        errors: what went wrong, by kind; empty when nothing did.
    """

    tool: str
    requests: int
    seconds: float
    p50: float
    p90: float
    p99: float
    errors: dict[str, int]

    @property
    def rps(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def joined(turns: Sequence[Findings]) -> Findings:
    """Return several loads on one server as one; latencies are the medians of theirs."""
    errors: Counter[str] = Counter()
    for one in turns:
        errors.update(one.errors)
    return Findings(
        turns[0].tool,
        sum(one.requests for one in turns),
        sum(one.seconds for one in turns),
        median(one.p50 for one in turns),
        median(one.p90 for one in turns),
        median(one.p99 for one in turns),
        dict(errors),
    )


def find_tool() -> str:
    """Return ``wrk`` if it is installed, else ``python``."""
    return "wrk" if shutil.which("wrk") else "python"


def put_load(target: Target, connections: int, seconds: float, tool: str) -> Findings:
    """Put a load on ``target``.

    Raises:
        MeasureError: the tool failed, or not one request was answered.
    """
    found = _TOOLS[tool](target, connections, seconds)
    if not found.requests:
        raise MeasureError(f"No request to {target.path} was answered in {seconds:g} s.")
    return found


def _run_wrk(target: Target, connections: int, seconds: float) -> Findings:
    # One thread: more of them would take cores from the server and answer no question better.
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={TIMEOUT:g}s"]
    address = f"http://127.0.0.1:{target.port}{target.path}"
    command += ["-s", str(_WRK_SCRIPT), address, "--", target.body, target.content_type]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if ended.returncode:
        raise MeasureError(f"wrk ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()}")
    return read_wrk(ended.stdout)


def read_wrk(output: str) -> Findings:
    """Return what wrk printed through our script.

    Raises:
        MeasureError: the line of JSON is not there.
    """
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise MeasureError(f"wrk printed no findings: {output.strip()[-200:]!r}")
    found = json.loads(line)
    errors = {kind: count for kind, count in found["errors"].items() if count}
    seconds, p50, p90, p99 = (found[key] / 1e6 for key in ("duration", "p50", "p90", "p99"))
    return Findings("wrk", found["requests"], seconds, p50, p90, p99, errors)


# --- our own -------------------------------------------------------------------------------------------


def request_bytes(target: Target) -> bytes:
    """Return the request as it goes over the wire."""
    body = target.body_bytes
    head = f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\nContent-Type: {target.content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer_end(received: bytes) -> tuple[int, int] | None:
    """Return status and length of the first whole answer in ``received``, None while it is not whole.

    Raises:
        MeasureError: an answer that says neither a length nor that it comes in chunks.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    length = _LENGTH.search(received, 0, head_end + 2)
    end: int | None
    if length is not None:
        end = head_end + 4 + int(length[1])
    elif _CHUNKED.search(received, 0, head_end + 2):
        end = _end_of_chunks(received, head_end + 4)
    else:
        raise MeasureError(f"An answer says no length: {received[:head_end][:200]!r}")
    return (int(received[9:12]), end) if end is not None and len(received) >= end else None


def _end_of_chunks(received: bytes, start: int) -> int | None:
    """Return where the chunks that begin at ``start`` end, None while the last is not there."""
    while (line_end := received.find(b"\r\n", start)) >= 0:
        size = int(received[start:line_end].partition(b";")[0], 16)
        start = line_end + 4 + size
        if size == 0:
            return start
    return None


def percentile(ordered: list[float], share: float) -> float:
    """Return the value of an ascending list below which ``share`` (0..1) of them lie."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Tally:
    """What all connections of a load find together."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()
        self.is_over = False


class _Connection(asyncio.Protocol):
    """One connection of a load: sends, waits for the whole answer, sends again."""

    def __init__(self, tally: _Tally) -> None:
        self._tally = tally
        self._received = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._tally.request)

    def data_received(self, data: bytes) -> None:
        tally = self._tally
        if tally.is_over:
            return
        self._received += data
        try:
            found = answer_end(self._received)
        except MeasureError:
            tally.errors["read"] += 1
            self._transport.abort()
            return
        if found is None:
            return
        status, end = found
        tally.latencies.append(time.perf_counter() - self._sent)
        if not 200 <= status < 300:
            tally.errors["status"] += 1
        self._received = self._received[end:]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._tally.is_over:
            self._tally.errors["read"] += 1

    def finish(self) -> None:
        """Count a request that is overdue, and close."""
        if time.perf_counter() - self._sent > TIMEOUT:
            self._tally.errors["timeout"] += 1
        self._transport.abort()


async def _generate(target: Target, connections: int, seconds: float) -> Findings:
    loop = asyncio.get_running_loop()
    tally = _Tally(request_bytes(target))
    began = time.perf_counter()
    open_connections = []
    for _ in range(connections):
        try:
            made = await loop.create_connection(lambda: _Connection(tally), "127.0.0.1", target.port)
        except OSError:
            tally.errors["connect"] += 1
            continue
        open_connections.append(made[1])
    await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
    tally.is_over = True
    took = time.perf_counter() - began
    for connection in open_connections:
        connection.finish()
    await asyncio.sleep(0)
    ordered = sorted(tally.latencies) or [0.0]
    p50, p90, p99 = (percentile(ordered, share) for share in (0.5, 0.9, 0.99))
    return Findings("python", len(tally.latencies), took, p50, p90, p99, dict(tally.errors))


def _run_python(target: Target, connections: int, seconds: float) -> Findings:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_generate(target, connections, seconds))
    return uvloop.run(_generate(target, connections, seconds))


_TOOLS = {"wrk": _run_wrk, "python": _run_python}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("path", help="as /predictions/fizbuz_package")
    parser.add_argument("body", help="JSON")
    parser.add_argument("-c", "--connections", type=int, default=64)
    parser.add_argument("-d", "--seconds", type=float, default=4.0)
    parser.add_argument("--load", choices=_TOOLS, default=find_tool(), help="default: %(default)s")
    told = parser.parse_args()
    found = put_load(Target(told.port, told.path, told.body), told.connections, told.seconds, told.load)
    print(json.dumps(asdict(found) | {"rps": round(found.rps, 1)}))


if __name__ == "__main__":
    main()
