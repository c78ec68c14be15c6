"""What each stage of a request costs by itself, in microseconds a call: where to look when a ratio falls.

One job a call unless the name says otherwise; the body is that of the two-layer service. Each figure is the best
of several repetitions, so that what else the machine does counts as little as it can.
"""

from __future__ import annotations

import argparse
import logging
import socket
import time
import timeit
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from bench.report import print_table
from bench.services.build import TWO_LAYERS, built_services
from marserve import logs
from marserve.archive.manifest import read_manifest
from marserve.batching.batcher import BatchPolicy
from marserve.batching.job import Job, Reply
from marserve.batching.queue import JobQueue
from marserve.doors.http.connection import Connection, Exchange, Limits
from marserve.doors.http.heads import Heads
from marserve.metrics.collector import LOT, Collector
from marserve.service import codec
from marserve.service.context import Context, RequestInfo
from marserve.wire import frames
from marserve.worker.batch import run_batch
from marserve.worker.loader import load_entry, stand_in
from marserve.worker.steps import NoSteps

#: Jobs of the stages that take a whole batch.
BATCH = 32
#: Least seconds of one repetition, and repetitions.
SPAN, REPEATS = 0.05, 5

BODY = TWO_LAYERS.body.encode()
ANSWER = TWO_LAYERS.examples[0][1]
ANSWER_BODY = codec.encode(ANSWER)[0]
PARTS = [(b"body", codec.JSON_TYPE, BODY)]
META = frames.encode_meta([b"", b"", b""], [b"Host", b"127.0.0.1:8080", b"Content-Type", b"application/json"])
NO_SPANS = (0.0,) * len(frames.SPANS)
REQUEST = b"POST /predictions/m HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
REQUEST += b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEADERS = b"x-request-id: 3f0c7a52-9d1b-4c5e-8a77-000000000001\r\ncontent-type: application/json\r\n"

#: A stage: its name, what is timed, and how many jobs one call of it covers.
Stage = tuple[str, Callable[[], object], int]


def batch_frame(count: int) -> bytes:
    """Return a BATCH frame of ``count`` jobs as it goes over the wire."""
    pieces: list[frames.Bytes] = []
    size = sum(frames.encode_job(pieces, number, frames.PREDICT, META, PARTS) for number in range(count))
    return b"".join([frames.batch_head(size, count, 1), *pieces])


def answer_frame(count: int) -> bytes:
    """Return an ANSWER frame of ``count`` answers as it goes over the wire."""
    pieces: list[frames.Bytes] = []
    size = sum(
        frames.encode_answer(pieces, number, 200, 0, b"", b"", codec.JSON_TYPE, ANSWER_BODY)
        for number in range(count)
    )
    return b"".join(frames.result_frame(1, 0, NO_SPANS, b"", pieces, count, size))


def _cut(data: bytes) -> object:
    return frames.FrameReader().feed(data)


def wire_stages() -> list[Stage]:
    """Return the stages of the wire, in the order of a job's trip."""
    stages: list[Stage] = []
    for count in (1, BATCH):
        job_bytes, answer_bytes = batch_frame(count), answer_frame(count)
        job_body, answer_body = job_bytes[frames.HEAD_SIZE :], answer_bytes[frames.HEAD_SIZE :]
        stages += [
            ("wire: encode jobs", partial(batch_frame, count), count),
            ("wire: cut frame", partial(_cut, job_bytes), count),
            ("wire: decode jobs", partial(frames.decode_jobs, job_body, count), count),
            ("wire: encode answers", partial(answer_frame, count), count),
            ("wire: decode answers", partial(frames.decode_result, answer_body, count), count),
        ]
    return stages


class _Sink:
    """A lane, a transport and a loop that do nothing, so that a connection's own work is all there is."""

    max_body = len(BODY)
    asgi = None

    def lane(self, method: bytes, target: bytes) -> _Sink:
        return self

    def admit(self, exchange: Exchange) -> bool:
        return True

    def accept(self, exchange: Exchange) -> None:
        exchange.respond(200, b"", HEADERS, ANSWER_BODY)

    def is_closing(self) -> bool:
        return False

    def nothing(self, *_: object, **__: object) -> None:
        pass

    write = set_write_buffer_limits = get_extra_info = nothing


class _Version:
    """Whose jobs are counted."""

    name, version = "m", "1.0"


class _NoHeads(Heads):
    """Knows none, so that each is parsed."""

    def learn(self, data: bytes) -> None:
        pass


def door_stages() -> list[Stage]:
    """Return a connection's work for one request: reading it and writing its answer, without the system's calls."""
    stages: list[Stage] = []
    for name, heads in (("parsed", _NoHeads), ("known", Heads)):
        sink = cast("Any", _Sink())
        connection = Connection(sink, sink, Limits(), sink, heads(sink.lane), sink.nothing, sink.nothing)
        connection.connection_made(sink)
        stages.append((f"http: a request and its answer, head {name}", partial(connection.data_received, REQUEST), 1))
    return stages


def system_stages(closing: ExitStack) -> list[Stage]:
    """Return what the system takes: a request and an answer over loopback, written and read by one thread."""
    listening = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = closing.enter_context(socket.create_connection(listening.getsockname()))
    server = closing.enter_context(listening.accept()[0])
    for each in (client, server):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = b"".join(
        (b"HTTP/1.1 200 OK\r\n", HEADERS, b"content-length: %d\r\n\r\n" % len(ANSWER_BODY), ANSWER_BODY)
    )

    def there_and_back() -> None:
        client.send(REQUEST)
        server.recv(65536)
        server.send(answer)
        client.recv(65536)

    return [("system: two writes and two reads on loopback", there_and_back, 1)]


def metrics_stages() -> list[Stage]:
    """Return counting a lot of jobs, with and without their access lines: a batch each, or all in one."""
    version = _Version()
    jobs = [
        Job(number, frames.PREDICT, META, PARTS, len(BODY), cast("Reply", None), version, 0.0, 1.0)
        for number in range(LOT)
    ]
    for job in jobs:
        job.client, job.method, job.target, job.status = ("127.0.0.1", 1), b"POST", b"/predictions/m", 200
        job.sent = job.filled = job.done = 0.001 * job.id
    logging.getLogger(logs.ACCESS).disabled = True

    def counting(collector: Collector, is_batch: bool) -> Callable[[], object]:
        own = [tuple(0.0 for _ in NO_SPANS) for _ in jobs]

        def call() -> None:
            for job, spans in zip(jobs, own, strict=True):
                job.spans, job.batch_size = (NO_SPANS, LOT) if is_batch else (spans, 1)
                job.reply = cast("Reply", None)  # the collector lets go of it
            collector.jobs_ended(jobs)
            collector._runs.clear()

        return call

    return [
        ("metrics: count batches of one", counting(Collector(), is_batch=False), LOT),
        ("metrics: the same, with access lines", counting(Collector(has_access_log=True), is_batch=False), LOT),
        ("metrics: count a large batch", counting(Collector(), is_batch=True), LOT),
        ("metrics: the same, with access lines", counting(Collector(has_access_log=True), is_batch=True), LOT),
    ]


def queue_stages() -> list[Stage]:
    """Return making a job, and its way through the queue."""
    reply = cast("Reply", None)  # neither a job nor a queue looks at it

    def job() -> Job:
        return Job(1, frames.PREDICT, META, PARTS, len(BODY), reply, None, 0.0, float("inf"))

    def through(queue: JobQueue, jobs: list[Job]) -> Callable[[], object]:
        def call() -> object:
            for each in jobs:
                queue.put(each)
            return queue.take(True, 0.0)

        return call

    return [
        ("job: make", job, 1),
        *(
            ("queue: put and take", through(JobQueue(100, BatchPolicy(count)), [job() for _ in range(count)]), count)
            for count in (1, BATCH)
        ),
    ]


def worker_stages(folder: Path) -> list[Stage]:
    """Return the codec and a whole batch through the service that lies unpacked in ``folder``."""
    manifest = read_manifest(folder)
    context = Context(manifest.model_name, str(folder), manifest.raw, thread_count=1)
    stand_in(folder)
    steps = NoSteps()
    entry = load_entry(folder, manifest, "", context, steps)

    def run(count: int) -> Callable[[], object]:
        jobs = [RequestInfo("bench", parts=PARTS) for _ in range(count)]
        return lambda: run_batch(entry, context, jobs, codec.NATIVE, steps)

    def handle(count: int) -> Callable[[], object]:
        rows = [codec.decode(PARTS) for _ in range(count)]
        return lambda: entry.handle(rows, context)

    return [
        ("codec: decode", lambda: codec.decode(PARTS), 1),
        ("codec: encode", lambda: codec.encode(ANSWER), 1),
        *(("service: handle", handle(count), count) for count in (1, BATCH)),
        *(("worker: run_batch", run(count), count) for count in (1, BATCH)),
    ]


def microseconds(call: Callable[[], object]) -> float:
    """Return the time of one call, the best of ``REPEATS`` repetitions."""
    timer = timeit.Timer(call, timer=time.perf_counter)
    number = 1
    while timer.timeit(number) < SPAN:
        number *= 4
    return min(timer.repeat(REPEATS, number)) / number * 1e6


def main() -> None:
    argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__).parse_args()
    console = Console(highlight=False)
    rows = []
    with built_services() as built, ExitStack() as closing:
        stages = (*system_stages(closing), *door_stages(), *queue_stages(), *wire_stages(), *metrics_stages())
        for name, call, jobs in (*stages, *worker_stages(built.folders / TWO_LAYERS.name)):
            cost = microseconds(call)
            rows.append([name, str(jobs), f"{cost:.2f}", f"{cost / jobs:.2f}"])
    print_table(console, "Stages", ("stage", "jobs", "µs a call", "µs a job"), rows)


if __name__ == "__main__":
    main()
