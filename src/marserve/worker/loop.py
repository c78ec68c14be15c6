"""The worker's loop: runs every batch that it has received through the service and sends the answers together."""

from __future__ import annotations

import gc
import logging
import os
import time
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from marserve.archive.manifest import Manifest, read_manifest
from marserve.errors import HandlerFault, LoadError, OutOfMemory, ServeError
from marserve.service.codec import Part
from marserve.service.context import Context, Headers, RequestInfo
from marserve.service.metrics import COUNTER
from marserve.wire import frames, page
from marserve.wire.arena import ARENA_THRESHOLD, Half
from marserve.wire.streams import WorkerStream
from marserve.worker.batch import Outcome, encode_results, run_batch
from marserve.worker.faults import Failure
from marserve.worker.loader import Entry, load_entry, stand_in

log = logging.getLogger("marserve.worker")

#: Answers wait at most this long for others to travel with, seconds.
GATHER = 0.0005
#: Share of the recent waits for work that must have been shorter than a poll lasts, or polling would mostly take the
#: processor from others; and how much the newest wait counts.
WORTH, NEWEST = 0.6, 0.05
#: Looks at the socket for a batch that the page has announced: it is there within microseconds.
LOOKS = 50
#: Objects between two collections: a batch makes few that outlive it, and a scan of a large model costs.
GC_THRESHOLD = 20_000

#: Place of inference among the spans.
INFERENCE_SPAN = 3

Frame = Tuple[int, int, int, int, bytes]


class Steps:
    """Where the time of a batch goes; what runs is on the page for the server to see."""

    __slots__ = ("_clock", "_words", "spans")

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._clock = time.perf_counter
        #: seconds by ``wire.frames.SPANS``
        self.spans = [0.0] * len(frames.SPANS)

    def show_on(self, words: memoryview) -> None:
        """Tell of the steps on another page from now on: a forked worker has one of its own."""
        self._words = words

    def enter(self, step: int) -> None:
        """A step begins; ``step`` counts from decode, the first after the wait."""
        self._words[page.STEP] = step + 1
        self.spans[step + 1] -= self._clock()

    def leave(self, step: int) -> None:
        """A step has ended; what runs outside of any is the service's own ``handle``."""
        self.spans[step + 1] += self._clock()
        self._words[page.STEP] = INFERENCE_SPAN


class Request(RequestInfo):
    """One job as its service sees it; id and headers are read from the wire's bytes only when they are asked for."""

    __slots__ = ("_kind", "_meta", "_prefix", "number")

    def __init__(self, job: frames.JobIn, parts: Sequence[Part], prefix: str, now: float) -> None:
        self.number, self._kind, self._meta, _, seconds_left = job
        self.parts = parts
        self._prefix = prefix
        self.deadline = now + seconds_left

    @property
    def wants_description(self) -> bool:
        """See ``RequestInfo``."""
        return self._kind == frames.DESCRIBE

    def id_text(self) -> str:
        """See ``RequestInfo``."""
        return f"{self._prefix}{self.number:012x}"

    def header_map(self) -> Headers:
        """See ``RequestInfo``; the server's own headers win over the client's."""
        fields, self.headers = frames.decode_meta(self._meta)
        explain = b"True" if self._kind == frames.EXPLAIN else b"False"
        self.extra = (b"explain", explain, b"url_path", fields[1])
        if self.wants_description:
            self.extra += (b"describe", b"True")
        return RequestInfo.header_map(self)


class Runner(NamedTuple):
    """A loaded service and what the server told about it."""

    entry: Entry
    context: Context
    steps: Steps
    style: str
    decode_input: bool
    id_prefix: str
    max_response_bytes: int


class LoadOutcome(NamedTuple):
    """What the server is told of a load, and the service when it worked."""

    message: Dict[str, object]
    runner: Optional[Runner]


def load(told: Mapping[str, object], words: memoryview) -> LoadOutcome:
    """Load the service that the server names; never raises what the service does."""
    began = time.perf_counter()
    try:
        runner = _load(told, words)
    except ServeError as error:
        return failed(error)
    except MemoryError:
        return failed(OutOfMemory("The service ran out of memory while it loaded."))
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    told_back: Dict[str, object] = {
        "ok": True,
        "seconds": time.perf_counter() - began,
        "is_async": runner.entry.is_async,
        "metrics": runner.context.metrics.drain().decode(),
    }
    return LoadOutcome(told_back, runner)


def failed(error: ServeError) -> LoadOutcome:
    """Return what the server is told of a service that does not load."""
    traceback = error.traceback if isinstance(error, LoadError) else ""
    message = {
        "ok": False,
        "kind": error.kind,
        "message": error.message,
        "hint": error.hint,
        "traceback": traceback,
    }
    return LoadOutcome(message, None)


def _load(told: Mapping[str, object], words: memoryview) -> Runner:
    folder = Path(str(told["folder"]))
    threads = int(str(told["thread_count"]))
    # Before numpy or torch are imported: their pools are sized once.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    # Which of its files must be there is the server's decision, and has been taken.
    manifest: Manifest = read_manifest(folder, must_be_whole=False)
    gpu = told.get("gpu_id")
    config, allowed = told.get("config"), told.get("allowed_input_urls")
    context = Context(
        str(told["model_name"]),
        str(folder),
        manifest.raw,
        int(str(told["batch_size"])),
        int(gpu) if isinstance(gpu, int) else None,
        str(told["server_version"]),
        limit_max_image_pixels=bool(told["limit_max_image_pixels"]),
        model_yaml_config=dict(config) if isinstance(config, dict) else {},
        thread_count=threads,
        allowed_input_urls=[str(one) for one in allowed] if isinstance(allowed, list) else (),
    )
    context.metrics.declare(told.get("metrics"))
    context.will_fork = bool(told.get("will_fork"))
    steps = Steps(words)
    stand_in(folder)
    _tell_children(folder)
    envelope, style = str(told.get("envelope") or ""), str(told["style"])
    if style == "torchserve":
        context.metrics.unnamed_kind = COUNTER
    entry = load_entry(folder, manifest, str(told["handler"]), context, steps, envelope, style)
    if context.model_yaml_config.get("asyncCommunication") and not entry.is_async:
        log.warning("asyncCommunication has no effect: %s is not written with async def.", entry.describe)
    return Runner(
        entry,
        context,
        steps,
        str(told["style"]),
        bool(told["decode_input"]),
        str(told["id_prefix"]),
        int(str(told["max_response_bytes"])),
    )


def _tell_children(folder: Path) -> None:
    """Let processes that the service starts import the archive's modules too, wherever they run."""
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    os.environ["PYTHONPATH"] = os.pathsep.join([*places, str(folder)])


class Loop:
    """Serves one link until it is told to stop."""

    #: whether answers may go through the arena
    has_arena = True

    def __init__(
        self,
        stream: WorkerStream,
        reader: frames.FrameReader,
        words: memoryview,
        halves: Sequence[Half],
        runner: Runner,
    ) -> None:
        # Lifetime of the worker
        self._stream = stream
        self._reader = reader
        self._words = words
        self._requests, self._answers = halves
        self._runner = runner
        # Answers that wait for others
        self._out: List[frames.Bytes] = []
        self._first_answer = 0.0
        #: share of the recent waits for work that were short
        self._short_waits = 1.0
        #: number of the last batch that was received
        self._last = 0
        #: the failure that was logged last
        self._last_told: Optional[Failure] = None
        runner.context._send = self._send_pieces

    def serve(self) -> bool:
        """Run batches until the server says stop (True) or is gone (False)."""
        stream, words = self._stream, self._words
        while True:
            data = self._wait()
            if not data:
                return False
            while data:
                received = time.perf_counter()
                found = self._reader.feed(data)
                half = len(found) // 2
                for index, frame in enumerate(found):
                    kind = frame[0]
                    if kind == frames.BATCH:
                        if index == half and self._out:
                            self._flush()  # while the rest runs, the server answers these and sends new ones
                        self._run(frame, received)
                    elif kind == frames.STOP:
                        self._flush()
                        stream.close()
                        return True
                # What came meanwhile is run first if answers wait: one look costs a tenth of one send.
                data = stream.receive_now() if self._out and words[page.SENT] > self._last else b""
            self._flush()

    def _wait(self) -> bytes:
        """Return what comes next from the server, b"" when it is gone.

        Waking a process that blocks costs tens of microseconds, more than a small model needs. So a worker watches
        for work for a short while first, as long as it mostly comes within that. Where workers outnumber cores the
        server sets the while to 0: a watcher would take the time of those who work.
        """
        seconds = self._words[page.POLL_MICROSECONDS] / 1e6
        if not seconds:
            return self._stream.receive(0)
        began = time.perf_counter()
        will_come = self._short_waits >= WORTH and self._poll(began + seconds)
        data = self._stream.receive(LOOKS if will_come else 0)
        is_short = time.perf_counter() - began < seconds
        self._short_waits += NEWEST * (is_short - self._short_waits)
        return data

    def _poll(self, end: float) -> bool:
        """Watch for work until it is on its way, True, or until ``end``.

        Watching the page costs the sender nothing, while asking the socket would hold the lock that it needs. Who
        else wants the processor goes first.
        """
        words, last = self._words, self._last
        clock, sent, give_way = time.perf_counter, page.SENT, os.sched_yield
        while words[sent] == last:
            if clock() >= end:
                return False
            give_way()
        return True

    def _flush(self) -> None:
        if self._out:
            out = self._out
            self._out = []
            self._stream.send(out)

    def _run(self, frame: Frame, received: float) -> None:
        """Run one batch; its answers go out with those of its neighbours, or now if they have waited enough."""
        _kind, _flags, count, number, _body = frame
        words = self._words
        self._last = number
        if number <= words[page.TAKEN_BACK]:
            return  # others have these jobs
        now_ns = time.monotonic_ns()
        words[page.SINCE] = now_ns
        words[page.STARTED] = number
        runner = self._runner
        spans = runner.steps.spans
        began = time.perf_counter()
        spans[:] = (began - received, 0.0, 0.0, 0.0, 0.0, 0.0)
        requests = self._requests_of(frame, now_ns / 1e9)
        spans[1] = time.perf_counter() - began
        outcomes = self._outcomes(frame, requests)
        encoded = time.perf_counter()
        pieces: List[frames.Bytes] = []
        size = 0
        for request, outcome in zip(requests, outcomes):
            size += self._encode(pieces, request.number, number, outcome)
        metrics = runner.context.metrics.drain() or b""
        now = time.perf_counter()
        spans[5] += now - encoded
        self._out.extend(frames.result_frame(number, 0, spans, metrics, pieces, count, size))
        words[page.FINISHED] = number
        if len(self._out) == len(pieces) + 3:
            self._first_answer = now
        if now - began > GATHER or now - self._first_answer > GATHER:
            self._flush()

    def _requests_of(self, frame: Frame, moment: float) -> List[Request]:
        """Return the requests of a batch, which came at ``moment`` of the monotonic clock."""
        _kind, _flags, count, _number, body = frame
        prefix = self._runner.id_prefix
        return [Request(job, self._fetched(job.parts), prefix, moment) for job in frames.decode_jobs(body, count)]

    def _outcomes(self, frame: Frame, requests: Sequence[RequestInfo]) -> List[Outcome]:
        """Run the service; ``frame`` is the batch as it came."""
        runner = self._runner
        return run_batch(runner.entry, runner.context, requests, runner.style, runner.steps, runner.decode_input)

    def _fetched(self, parts: List[frames.PartIn]) -> Sequence[Part]:
        """Return the parts with a view of the arena in the place of each body that is there."""
        found: List[Part] = []
        for name, content_type, body in parts:
            found.append((name, content_type, body if type(body) is bytes else self._view(body)))
        return found

    def _view(self, body: Union[bytes, frames.Placed]) -> Union[bytes, memoryview]:
        return self._requests.view(*body) if isinstance(body, frames.Placed) else body

    def _send_pieces(self, values: Mapping[int, object], status: int, phrase: str) -> None:
        """Send pieces of answers of the running batch, by position; see ``Context.send_intermediate``."""
        self._send_pieces_of(self._runner.context, self._last, values, status, phrase)

    def _send_pieces_of(
        self, context: Context, number: int, values: Mapping[int, object], status: int, phrase: str
    ) -> None:
        runner = self._runner
        self._words[page.SINCE] = time.monotonic_ns()  # the service is not silent
        outcomes = encode_results(values.values(), context, runner.style, list(values))
        pieces: List[frames.Bytes] = []
        size = 0
        for index, outcome in zip(values, outcomes):
            request = context.requests[index]
            if outcome.error is not None:
                raise HandlerFault(outcome.error.message, outcome.error.hint)
            if status != 200:
                outcome.status = status
            if phrase:
                outcome.phrase = phrase.encode("latin-1", "replace")
            if runner.style == "torchserve":  # its clients see what its workers told its front end
                outcome.headers = [*outcome.headers, b"ts_stream_next", b"true"]
            assert isinstance(request, Request)
            size += self._encode(pieces, request.number, number, outcome)
        self._out.extend(frames.result_frame(number, frames.MORE, (0.0,) * 6, b"", pieces, len(outcomes), size))
        self._flush()

    def _encode(self, pieces: List[frames.Bytes], id: int, number: int, outcome: Outcome) -> int:
        """Append one answer; return its bytes."""
        error = outcome.error
        if error is not None:
            if error.traceback and error is not self._last_told:
                self._last_told = error  # the whole batch shares one
                log.error("Request %s%012x: %s\n%s", self._runner.id_prefix, id, error.message, error.traceback)
            texts = frames.text_parts(
                message=error.message, hint=error.hint, fault=error.reason, traceback=error.traceback
            )
            return frames.encode_answer_parts(pieces, id, error.code, frames.ERROR, error.kind.encode(), b"", texts)
        body: Union[bytes, frames.Placed] = outcome.body
        size = len(body)
        if size > self._runner.max_response_bytes:
            limit = self._runner.max_response_bytes
            texts = frames.text_parts(
                message=f"The answer has {size} bytes; max_response_size allows {limit}.",
                hint="Raise max_response_size, or let the service answer less.",
            )
            return frames.encode_answer_parts(pieces, id, 0, frames.ERROR, b"HandlerFault", b"", texts)
        if size >= ARENA_THRESHOLD and self.has_arena:
            self._answers.ring.give_back_until(self._words[page.CONSUMED])
            offset = self._answers.write(number, [outcome.body], size)
            if offset is not None:
                body = frames.Placed(offset, size)
        meta = b"\n".join(outcome.headers) if outcome.headers else b""
        return frames.encode_answer(pieces, id, outcome.status, 0, outcome.phrase, meta, outcome.content_type, body)
