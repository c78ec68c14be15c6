"""Runs a service whose ``handle`` is ``async def``: batches run beside each other, each is answered when done."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Dict, List, Sequence

from marserve.errors import Cancelled
from marserve.service.context import Context, RequestInfo
from marserve.wire import frames, page
from marserve.worker.batch import (
    DESCRIBED,
    Outcome,
    decode_rows,
    encode_description,
    is_for_each_alone,
    outcomes_of,
)
from marserve.worker.coroutines import service_loop
from marserve.worker.faults import Failure, failure_of
from marserve.worker.loader import Entry
from marserve.worker.loop import INFERENCE_SPAN, Frame, Loop, Request
from marserve.worker.steps import NoSteps, Steps

log = logging.getLogger("marserve.worker")

_CANCELLED = Failure(Cancelled.kind, "Nobody waits for the answer any more.")


class AsyncLoop(Loop):
    """Serves one link on the service's event loop.

    The page says which batches have come in, and when the last sign of life was; none is said to be finished, so
    when the worker dies every batch without an answer is under suspicion. Answers do not go through the arena:
    its regions are given back in the order of batches, and these end in any order.
    """

    has_arena = False

    def serve(self) -> bool:
        """Run batches until the server says stop (True) or is gone (False)."""
        return service_loop().run_until_complete(self._serve())

    async def _serve(self) -> bool:
        self._running: Dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[bool] = self._loop.create_future()
        self._loop.add_reader(self._stream.fileno(), self._readable)
        try:
            return await self._ended
        finally:
            self._loop.remove_reader(self._stream.fileno())
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _readable(self) -> None:
        data = self._stream.receive()
        if not data:
            self._end(False)
            return
        received = time.perf_counter()
        for frame in self._reader.feed(data):
            if frame[0] == frames.BATCH:
                self._begin(frame, received)
            elif frame[0] == frames.CANCEL:
                self._cancel(frame)
            elif frame[0] == frames.STOP:
                self._flush()
                self._stream.close()
                self._end(True)
                return

    def _end(self, was_told: bool) -> None:
        if not self._ended.done():
            self._ended.set_result(was_told)

    def _begin(self, frame: Frame, received: float) -> None:
        """Start one batch, unless the server has given it to another worker meanwhile."""
        number = frame[3]
        self._last = number
        if number <= self._words[page.TAKEN_BACK]:
            return
        self._show_life()
        self._words[page.STARTED] = number
        task = self._loop.create_task(self._run_beside(frame, received))
        self._running[number] = task
        task.add_done_callback(partial(self._done, number))

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        del self._running[number]
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._ended.done():
            self._ended.set_exception(error)  # a fault of ours ends the process, as in an ordinary worker

    def _cancel(self, frame: Frame) -> None:
        number = frames.decode_message(frame[4]).get("batch")
        task = self._running.get(number) if isinstance(number, int) else None
        if task is not None:
            task.cancel()

    def _show_life(self) -> None:
        self._words[page.SINCE] = time.monotonic_ns()

    async def _run_beside(self, frame: Frame, received: float) -> None:
        """Run one batch and answer it; one that is cancelled is answered too, so that the server can count on it."""
        _kind, _flags, count, number, body = frame
        runner = self._runner
        began = time.perf_counter()
        jobs = frames.decode_jobs(body, count)
        moment = time.monotonic()
        requests = [Request(job, self._fetched(job.parts), runner.id_prefix, moment) for job in jobs]
        context = runner.context.for_batch()
        context._send = partial(self._send_pieces_of, context, number)
        try:
            outcomes = await run_batch(runner.entry, context, requests, runner.style, NoSteps(), runner.decode_input)
        except asyncio.CancelledError:
            outcomes = [Outcome(b"", b"", _CANCELLED)] * count
        pieces: List[frames.Bytes] = []
        size = 0
        for job, outcome in zip(jobs, outcomes):
            size += self._encode(pieces, job.id, number, outcome)
        metrics = context.metrics.drain() + runner.context.metrics.drain()
        spans = [0.0] * len(frames.SPANS)
        spans[0] = began - received
        spans[INFERENCE_SPAN] = time.perf_counter() - began
        self._show_life()
        self._hand_out(frames.result_frame(number, 0, spans, metrics, pieces, count, size))

    def _hand_out(self, frame: Sequence[frames.Bytes]) -> None:
        """Send a frame with those of the same round of the event loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.extend(frame)


async def run_batch(
    entry: Entry,
    context: Context,
    jobs: Sequence[RequestInfo],
    style: str,
    steps: Steps,
    decode_input: bool = True,
) -> List[Outcome]:
    """Return one outcome a job; ``worker.batch.run_batch`` for a ``handle`` that is awaited.

    Raises:
        asyncio.CancelledError: the batch is no longer wanted.
    """
    rows, refused = decode_rows(entry, jobs, style, steps, decode_input)
    for index, outcome in refused.items():
        if outcome is DESCRIBED:
            refused[index] = await _described(entry, context, jobs[index], style)
    kept = [job for index, job in enumerate(jobs) if index not in refused]
    answers = iter(await _handle(entry, context, kept, rows, style, steps, decode_input) if kept else ())
    return [refused.get(index) or next(answers) for index in range(len(jobs))]


async def _described(entry: Entry, context: Context, job: RequestInfo, style: str) -> Outcome:
    """Return what the service says of itself; one without words for it is called with the header ``describe``."""
    context.begin([job])
    describe = getattr(entry.service, "describe_handle", None)
    try:
        result = [describe()] if callable(describe) else await entry.handle([{}], context)  # type: ignore[misc]
        return encode_description(result, context, style)
    except Exception as error:
        return Outcome(b"", b"", failure_of(error, style))


async def _handle(
    entry: Entry,
    context: Context,
    jobs: Sequence[RequestInfo],
    rows: List[Dict[str, object]],
    style: str,
    steps: Steps,
    decode_input: bool,
) -> List[Outcome]:
    """Run the service on rows that were found good and encode what it returns."""
    context.begin(jobs)
    try:
        result = await entry.handle(rows, context)  # type: ignore[misc]
    except Exception as error:
        if is_for_each_alone(error, context):
            return [(await run_batch(entry, context, [job], style, steps, decode_input))[0] for job in jobs]
        return [Outcome(b"", b"", failure_of(error, style))] * len(jobs)
    return outcomes_of(result, context, style, steps)
