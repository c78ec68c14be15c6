"""What each stage of a request costs by itself, in microseconds a call: where to look when a ratio falls.

One job a call unless the name says otherwise; the body is that of the two-layer service. Each figure is the best
of several repetitions, so that what else the machine does counts as little as it can.
"""

from __future__ import annotations

import argparse
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from rich.console import Console

from bench.report import print_table
from bench.services.build import TWO_LAYERS, built_services
from marserve.archive.manifest import read_manifest
from marserve.batching.batcher import BatchPolicy
from marserve.batching.job import Job, Reply
from marserve.batching.queue import JobQueue
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
    with built_services() as built:
        for name, call, jobs in (*queue_stages(), *wire_stages(), *worker_stages(built.folders / TWO_LAYERS.name)):
            cost = microseconds(call)
            rows.append([name, str(jobs), f"{cost:.2f}", f"{cost / jobs:.2f}"])
    print_table(console, "Stages", ("stage", "jobs", "µs a call", "µs a job"), rows)


if __name__ == "__main__":
    main()
