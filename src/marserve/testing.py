"""The fakes that tests use: time that needs no waiting, a worker on the real wire, a starter, and recorders.

Imported by tests alone. ``FakeWorker`` speaks the real frames over a real socket, page and arena, in the loop of the
test: what a test does not let happen does not happen, so every interleaving can be written down and none is timed.
"""

from __future__ import annotations

import array
import asyncio
import functools
import selectors
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from marserve.batching.job import Job
from marserve.errors import ServeError
from marserve.supervisor.process import Exit, Launch, OnExit
from marserve.wire import frames, page
from marserve.wire.arena import ARENA_THRESHOLD, Half, map_arena
from marserve.wire.protocol import WORKER, next_state
from marserve.wire.streams import CHUNK, close_all, connect

Got = TypeVar("Got")

#: Passes of the loop after which all that can follow from one event without time passing has followed.
SETTLED = 25
#: Seconds that every fake answer reports, by ``wire.frames.SPANS``.
QUICK = (0.0, 0.00001, 0.0, 0.00002, 0.0, 0.00001)


# Time


class FakeClock:
    """Stands for the module ``time`` where a test wants to say how late it is.

    It moves when it is told to, and when somebody is busy waiting.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    def monotonic(self) -> float:
        """Return the moment, seconds."""
        return self._now

    def monotonic_ns(self) -> int:
        """Return the moment, nanoseconds."""
        return int(self._now * 1e9)

    def perf_counter(self) -> float:
        """Return the moment, a microsecond after the last look: who looks at it until it is late does end."""
        self._now += 1e-6
        return self._now

    def time(self) -> float:
        """Return the time of day, seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting, moves the clock to where the loop's next timer is due."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None:
            raise RuntimeError("Nothing is left that could happen: what the test waits for never comes.")
        self._clock.advance(timeout)
        return []


class FakeLoop(asyncio.SelectorEventLoop):
    """An event loop on a fake clock: timers run in their order and at their moments, but nothing ever waits.

    A test that would hang raises RuntimeError instead.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(_JumpingSelector(clock))
        self._fake_clock = clock

    def time(self) -> float:
        """Return the fake clock's moment."""
        return self._fake_clock.monotonic()


def run(clock: FakeClock, work: Coroutine[object, object, Got]) -> Got:
    """Run ``work`` in a loop on ``clock`` and return what it returns."""
    with asyncio.Runner(loop_factory=lambda: FakeLoop(clock)) as runner:
        return runner.run(work)


def in_fake_time(story: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function that has a fixture ``clock``: it runs in a loop on that clock."""

    @functools.wraps(story)
    def test(**fixtures: object) -> None:
        clock = fixtures["clock"]
        assert isinstance(clock, FakeClock)
        run(clock, story(**fixtures))

    return test


async def settle() -> None:
    """Let happen all that follows from what has happened, without time passing."""
    for _ in range(SETTLED):
        await asyncio.sleep(0)


# Recorders


class RecordingReply:
    """A ``batching.job.Reply`` that keeps what reaches it.

    Attributes:
        status, phrase, headers, body: of the answer.
        error: what the job failed with.
        ending_count: answers and errors that have come; more than 1 breaks the promise.
        refusing: raised by ``answer``, as a door does with what it cannot send.
        pieces: of an answer in pieces.
        reads: whether the client takes what it is sent.
    """

    def __init__(self, refusing: Exception | None = None) -> None:
        self.status = 0
        self.phrase = b""
        self.headers: list[bytes] = []
        self.body = b""
        self.error: ServeError | None = None
        self.ending_count = 0
        self.refusing = refusing
        self.pieces: list[bytes] = []
        self.reads = True
        self.on_end: Callable[[], None] | None = None
        self._ended = asyncio.Event()

    def _end(self) -> None:
        self.ending_count += 1
        self._ended.set()
        if self.on_end is not None:
            self.on_end()

    def answer(self, status: int, phrase: bytes, headers: Sequence[bytes], body: bytes | memoryview) -> None:
        """See ``Reply``."""
        if self.refusing is not None:
            raise self.refusing
        self.start(status, phrase, headers)
        self.body = bytes(body)
        self._end()

    def start(self, status: int, phrase: bytes, headers: Sequence[bytes]) -> None:
        """See ``Reply``."""
        self.status, self.phrase, self.headers = status, phrase, list(headers)

    def chunk(self, data: bytes) -> bool:
        """See ``Reply``."""
        self.body += data
        self.pieces.append(data)
        return self.reads

    def end(self) -> None:
        """See ``Reply``."""
        self._end()

    def fail(self, error: ServeError) -> None:
        """See ``Reply``."""
        self.error = error
        self._end()

    async def ended(self) -> RecordingReply:
        """Return this once it has its end."""
        await self._ended.wait()
        return self


class RecordingObserver:
    """An ``observer.Observer`` that keeps what it is told.

    Attributes:
        jobs: jobs that ended, in order.
        metrics: blocks of metrics.
        workers, versions: (name, state) of each change.
        retries: (number, seconds to wait) of each worker that is tried again.
        requests: (client, method, target, status).
    """

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.metrics: list[bytes] = []
        self.workers: list[tuple[str, str]] = []
        self.retries: list[tuple[int, float]] = []
        self.versions: list[object] = []
        self.requests: list[tuple[object, str, str, int]] = []

    def jobs_ended(self, jobs: Sequence[object]) -> None:
        """See ``Observer``."""
        for job in jobs:
            assert isinstance(job, Job)
            self.jobs.append(job)

    def metrics_reported(self, version: object, metrics: bytes) -> None:
        """See ``Observer``."""
        self.metrics.append(metrics)

    def worker_changed(self, worker: object) -> None:
        """See ``Observer``."""
        self.workers.append((str(getattr(worker, "name", "")), str(getattr(worker, "state", ""))))

    def worker_retried(self, worker: object, wait: float) -> None:
        """See ``Observer``."""
        self.retries.append((int(getattr(worker, "number", 0)), wait))

    def version_changed(self, version: object) -> None:
        """See ``Observer``."""
        self.versions.append(version)

    def request_answered(
        self, client: object, method: str, target: str, status: int, seconds: float, error: ServeError | None = None
    ) -> None:
        """See ``Observer``."""
        self.requests.append((client, method, target, status))


# The worker


class FakeBatch(NamedTuple):
    """A batch as a worker receives it."""

    number: int
    jobs: list[frames.JobIn]


#: Makes the answer of one job from its body: (status, body).
Respond = Callable[[bytes], tuple[int, bytes]]


def echo(body: bytes) -> tuple[int, bytes]:
    """Answer with what was asked."""
    return 200, body


class FakeWorker:
    """The worker's end of a link, moved by a test.

    Attributes:
        batches: those that came and that ``on_batch`` was not there to take.
        told: what it was told to load, {} before.
        cancelled: numbers of the batches that it was asked to cancel.
        is_stopped: it was told to stop.
        is_open: its end of the link is open.
        on_load, on_batch, on_stop: what it does by itself.
    """

    def __init__(self, sock: socket.socket, token: str = "", hello: Mapping[str, object] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        sock.setblocking(False)
        self._reader = frames.FrameReader()
        self._descriptors = array.array("i")
        self._state = "open"
        self._unsent: deque[memoryview] = deque()
        self._since_look = asyncio.Event()
        self.is_open = True
        self.is_stopped = False
        self.told: dict[str, object] = {}
        self.cancelled: list[int] = []
        self.batches: deque[FakeBatch] = deque()
        self.on_load: Callable[[], None] | None = None
        self.on_batch: Callable[[FakeBatch], None] | None = None
        self.on_stop: Callable[[], None] | None = None
        self._loop.add_reader(sock.fileno(), self._readable)
        said = {"version": frames.WIRE_VERSION, "token": token, "pid": 1, "python": "3", **(hello or {})}
        self.send_raw(frames.encode_message(frames.HELLO, said))

    # Receiving

    def _readable(self) -> None:
        try:
            data, rights, _flags, _address = self._sock.recvmsg(CHUNK, socket.CMSG_SPACE(8))
        except BlockingIOError:
            return
        except OSError:
            data, rights = b"", []
        for _level, _kind, payload in rights:
            self._descriptors.frombytes(payload)
        if not data:
            self.close()
            return
        for kind, _, count, number, body in self._reader.feed(data):
            self._state = next_state(WORKER, self._state, kind)
            if kind == frames.BATCH:
                self._take(FakeBatch(number, frames.decode_jobs(body, count)))
            else:
                self._obey(kind, frames.decode_message(body))
        self._since_look.set()

    def _take(self, batch: FakeBatch) -> None:
        if self.on_batch is not None:
            self.on_batch(batch)
        else:
            self.batches.append(batch)

    def _obey(self, kind: int, value: dict[str, object]) -> None:
        if kind == frames.WELCOME:
            self._memory, self.words = page.map_page(self._descriptors[0])
            self.requests, self.answers = map_arena(self._descriptors[1], int(str(value["arena_bytes"])))
            close_all(self._descriptors)
        elif kind == frames.LOAD:
            self.told = value
            if self.on_load is not None:
                self.on_load()
        elif kind == frames.CANCEL:
            self.cancelled.append(int(str(value["batch"])))
        elif kind == frames.STOP:
            self.is_stopped = True
            if self.on_stop is not None:
                self.on_stop()

    async def until(self, is_so: Callable[[], object]) -> None:
        """Return once ``is_so`` holds; it is asked again after whatever comes over the link."""
        while not is_so():
            self._since_look.clear()
            await self._since_look.wait()

    async def next_batch(self) -> FakeBatch:
        """Return the oldest batch that was not taken yet, waiting for one."""
        await self.until(lambda: self.batches)
        return self.batches.popleft()

    def body(self, job: frames.JobIn, part: int = 0) -> bytes:
        """Return the bytes of a part, wherever they are."""
        body = job.parts[part].body
        return bytes(self.requests.view(*body)) if isinstance(body, frames.Placed) else body

    # Doing

    def loaded(self, outcome: Mapping[str, object] | None = None) -> None:
        """Say that the service has loaded, or what else ``outcome`` says."""
        self.send_raw(frames.encode_message(frames.LOADED, outcome or {"ok": True}))

    def begin(self, batch: FakeBatch, ago: float = 0.0, now_ns: int = 0) -> bool:
        """Start a batch as the page demands it; False when it was taken back.

        Args:
            ago: seconds for which it is to look as if it had been running.
            now_ns: the moment, where the test has a clock of its own.
        """
        if batch.number <= self.words[page.TAKEN_BACK]:
            return False
        now_ns = now_ns or int(self._loop.time() * 1e9)
        self.words[page.SINCE] = now_ns - int(ago * 1e9)
        self.words[page.STARTED] = batch.number
        return True

    def step(self, name: str) -> None:
        """Note which step runs."""
        self.words[page.STEP] = frames.SPANS.index(name)

    def finish(self, batch: FakeBatch) -> None:
        """Note that the answers of a batch are made."""
        self.words[page.FINISHED] = batch.number

    def answer(
        self, batch: FakeBatch, respond: Respond = echo, *, backwards: bool = False, spans: Sequence[float] = QUICK
    ) -> None:
        """Send the answers of a batch; large ones through the arena."""
        pieces: list[frames.Bytes] = []
        size = 0
        self.answers.ring.give_back_until(self.words[page.CONSUMED])
        for job in reversed(batch.jobs) if backwards else batch.jobs:
            status, content = respond(self.body(job))
            body: bytes | frames.Placed = content
            offset = self._place(batch, content)
            if offset is not None:
                body = frames.Placed(offset, len(content))
            size += frames.encode_answer(pieces, job.id, status, 0, b"", b"", b"application/json", body)
        self.send_result(batch, pieces, len(batch.jobs), size, spans=spans)

    def _place(self, batch: FakeBatch, content: bytes) -> int | None:
        if len(content) < ARENA_THRESHOLD:
            return None
        half: Half = self.answers
        return half.write(batch.number, [content], len(content))

    def send_result(
        self,
        batch: FakeBatch,
        pieces: list[frames.Bytes],
        count: int,
        size: int,
        *,
        spans: Sequence[float] = QUICK,
        metrics: bytes = b"",
    ) -> None:
        """Send answers that a test has encoded itself."""
        self.send_raw(b"".join(frames.result_frame(batch.number, 0, spans, metrics, pieces, count, size)))

    def send_pieces(self, batch: FakeBatch, *contents: bytes) -> None:
        """Send one piece of its answer to each job of a batch that goes on running."""
        pieces: list[frames.Bytes] = []
        size = sum(
            frames.encode_answer(pieces, job.id, 200, 0, b"", b"", b"text/plain", content)
            for job, content in zip(batch.jobs, contents, strict=True)
        )
        self.send_raw(
            b"".join(frames.result_frame(batch.number, frames.MORE, QUICK, b"", pieces, len(contents), size))
        )

    def serve(self, batch: FakeBatch, respond: Respond = echo) -> None:
        """Do all that a worker does with a batch, at once."""
        if self.begin(batch):
            self.finish(batch)
            self.answer(batch, respond)

    def send_raw(self, data: bytes) -> None:
        """Send any bytes, garbage too; what the socket does not take now follows later."""
        if data and not self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        if data:
            self._unsent.append(memoryview(data))
        self._writable()

    def _writable(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent[0])
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        """Close this end of the link."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            if self._state == "open":  # never greeted, or the greeting was not read
                close_all(self._descriptors)
            self._since_look.set()


# Its process


@dataclass(slots=True)
class Script:
    """What the workers that a ``FakeStarter`` starts do by themselves.

    Attributes:
        connects: says hello; else it only is there.
        outcome: what it says after it was told to load; None: nothing yet.
        respond: answers every batch at once; None: leaves that to the test.
        dies: exit code with which it ends when it is told to load; None: it does not.
        obeys: ends when it is told to stop.
    """

    connects: bool = True
    outcome: Mapping[str, object] | None = None
    respond: Respond | None = None
    dies: int | None = None
    obeys: bool = True


#: A worker that loads, answers everything with its own body, and stops when told to.
GOOD = Script(outcome={"ok": True}, respond=echo)
#: A worker that loads and leaves its batches to the test.
HELD = Script(outcome={"ok": True})


class FakeProcess:
    """A ``supervisor.process.Process`` in this process; implements what a ``Script`` says."""

    def __init__(self, launch: Launch, on_exit: OnExit, script: Script, pid: int) -> None:
        self.name = launch.name
        self.pid = pid
        self.lines: deque[str] = deque(maxlen=50)
        self.launch = launch
        self.kills: list[bool] = []
        self.included: list[int] = []
        self.exit: Exit | None = None
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._script = script
        self.worker: FakeWorker | None = None
        if script.connects:
            self.say_hello()

    def say_hello(self) -> FakeWorker:
        """Connect to the gate with the token that the launch names."""
        self.worker = worker = FakeWorker(connect(self.launch.gate), self.launch.token)
        script = self._script
        worker.on_load = self._load
        if script.respond is not None:
            respond = script.respond
            worker.on_batch = lambda batch: worker.serve(batch, respond)
        if script.obeys:
            worker.on_stop = lambda: self.end(Exit(0, None))
        return worker

    def _load(self) -> None:
        assert self.worker is not None
        if self._script.dies is not None:
            self.end(Exit(self._script.dies, None))
        elif self._script.outcome is not None:
            self.worker.loaded(self._script.outcome)

    def end(self, how: Exit) -> None:
        """Be gone; whoever started it hears of it in the loop's next pass."""
        if self.exit is None:
            self.exit = how
            if self.worker is not None:
                self.worker.close()
            self._loop.call_soon(self._on_exit, self, how)

    def include(self, pids: Sequence[int]) -> None:
        """See ``Process``."""
        self.included += pids

    def kill(self, hard: bool) -> None:
        """See ``Process``."""
        self.kills.append(hard)
        if hard:
            self.end(Exit(None, 9))


class FakeStarter:
    """A ``supervisor.process.Starter`` whose workers live in this process.

    Attributes:
        script: what the next worker does.
        processes: all that were started, oldest first.
        error: raised instead of starting one.
        releases: how often it was told that no further worker is wanted.
    """

    def __init__(self, script: Script = GOOD) -> None:
        self.script = script
        self.processes: list[FakeProcess] = []
        self.error: OSError | None = None
        self.releases = 0

    def start(self, launch: Launch, on_exit: OnExit) -> FakeProcess:
        """See ``Starter``."""
        if self.error is not None:
            raise self.error
        process = FakeProcess(launch, on_exit, self.script, len(self.processes) + 1)
        self.processes.append(process)
        return process

    def release(self) -> None:
        """See ``Starter``."""
        self.releases += 1

    async def close(self) -> None:
        """See ``Starter``."""
        self.release()

    @property
    def living(self) -> list[FakeProcess]:
        """Those that have not ended."""
        return [process for process in self.processes if process.exit is None]

    def worker(self, index: int = -1) -> FakeWorker:
        """Return the wire's end of a process that has connected; the youngest by default."""
        worker = self.processes[index].worker
        assert worker is not None, "That process has not connected."
        return worker
