"""The ranks of a worker of several processes: what the first hands on to the others, and what those do with it.

The first rank is the worker that the server knows. The others connect to a socket of its own, and get the frames of
the server's link as they came; the arena is mapped by all of them. A batch counts as finished once every rank has
run it: a rank that lags behind would else meet the next batch's collective operations with those of this one.
"""

from __future__ import annotations

import hmac
import logging
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NoReturn, Sequence

from marserve.errors import LoadError
from marserve.service.context import RequestInfo
from marserve.wire import frames, page
from marserve.wire.arena import map_arena
from marserve.wire.streams import (
    WorkerStream,
    close_all,
    connect,
    next_frame,
    receive_with_descriptors,
    send_all,
    send_with_descriptors,
)
from marserve.worker.batch import Outcome
from marserve.worker.exits import EXIT_LOAD_FAILED, EXIT_OK, EXIT_RANK_LOST
from marserve.worker.loop import Frame, LoadOutcome, Loop, failed, load

log = logging.getLogger("marserve.worker")

#: Seconds between two tries to reach the first rank, which may have started later.
PAUSE = 0.01


class Sibling:
    """Another rank, as the first one sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.rank = self.pid = 0
        self._sock = sock
        self._stream = WorkerStream(sock)
        self._reader = frames.FrameReader()

    def greet(self, token: str) -> bool:
        """Hear its hello; return whether it is one of ours."""
        found = next_frame(self._stream, self._reader, [])
        hello = frames.decode_message(found[1]) if found is not None and found[0] == frames.HELLO else {}
        said = str(hello.get("token", "")).encode("utf-8", "replace")
        if not hmac.compare_digest(said, token.encode()):
            self._sock.close()
            return False
        self.rank, self.pid = int(str(hello["rank"])), int(str(hello["pid"]))
        return True

    def welcome(self, frame: bytes, descriptor: int) -> None:
        """Send a frame with a descriptor."""
        send_with_descriptors(self._sock, frame, [descriptor])

    def tell(self, pieces: Sequence[frames.Bytes]) -> None:
        """Send a frame; one that is gone is noticed when its answer is awaited."""
        with suppress(OSError):
            send_all(self._sock, pieces)

    def hear(self) -> bytes:
        """Return the body of its next frame; ends this process when it is gone."""
        try:
            found = next_frame(self._stream, self._reader, [])
        except OSError:
            found = None
        if found is None:
            leave(self.rank)
        return found[1]


class Group:
    """The other ranks of a worker, in the hands of the first one."""

    def __init__(self, siblings: Sequence[Sibling]) -> None:
        self._siblings = siblings
        #: whoever tells the server that the service does not load takes it, and keeps it
        self._report = threading.Lock()
        self.pids = [os.getpid(), *(sibling.pid for sibling in siblings)]

    def welcome(self, arena_bytes: int, descriptor: int) -> None:
        """Share the arena."""
        for sibling in self._siblings:
            sibling.welcome(frames.encode_message(frames.WELCOME, {"arena_bytes": arena_bytes}), descriptor)

    def load(self, told: Mapping[str, object], words: memoryview, server: WorkerStream) -> LoadOutcome:
        """Load the service in every rank; it may need all of them at once, so none waits for another.

        A rank that fails while this one waits for it in the service is told of at once, and ends the process.
        """
        self.tell([frames.encode_message(frames.LOAD, told)])
        waiting = [
            threading.Thread(target=self._await_loaded, args=(sibling, server), daemon=True)
            for sibling in self._siblings
        ]
        for thread in waiting:
            thread.start()
        outcome = load(told, words)
        if outcome.runner is not None and outcome.runner.entry.is_async and told["is_fanned_out"]:
            outcome = failed(
                LoadError(
                    "A service of several processes that all get every batch cannot have async def handle.",
                    "Write def handle, or use parallelType pp or custom.",
                )
            )
        if outcome.runner is None:
            self._report.acquire()
            return outcome
        for thread in waiting:
            thread.join()
        return outcome

    def _await_loaded(self, sibling: Sibling, server: WorkerStream) -> None:
        message = frames.decode_message(sibling.hear())
        if message.get("ok"):
            return
        self._report.acquire()
        told = {**message, "message": f"In rank {sibling.rank}: {message.get('message')}"}
        server.send([frames.encode_message(frames.LOADED, told)])
        os._exit(EXIT_LOAD_FAILED)

    def tell(self, pieces: Sequence[frames.Bytes]) -> None:
        """Send the same to every rank."""
        for sibling in self._siblings:
            sibling.tell(pieces)

    def loop_maker(self, told: Mapping[str, object]) -> Callable[..., Loop]:
        """Return what makes the loop of the first rank."""
        return partial(LeadingLoop, self) if told["is_fanned_out"] else Loop

    def await_all(self) -> None:
        """Return once every rank has run the batch that was handed on."""
        for sibling in self._siblings:
            sibling.hear()


def leave(rank: int) -> NoReturn:
    """End this process because another rank is gone: the worker is of no use without it."""
    log.error("Rank %d is gone.", rank)
    sys.stdout.flush()
    os._exit(EXIT_RANK_LOST)


def gather(path: str, token: str, size: int) -> Group:
    """Wait for the other ranks at a socket; ``size`` counts all ranks of this machine."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # of a worker of the same number that was killed
    siblings: Dict[int, Sibling] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(size)
        while len(siblings) < size - 1:
            sibling = Sibling(listener.accept()[0])
            if sibling.greet(token):
                siblings[sibling.rank] = sibling
    os.unlink(path)
    return Group([siblings[rank] for rank in sorted(siblings)])


class LeadingLoop(Loop):
    """The loop of a first rank that hands every batch on."""

    def __init__(self, group: Group, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._group = group

    def _outcomes(self, frame: Frame, requests: Sequence[RequestInfo]) -> List[Outcome]:
        kind, flags, count, number, body = frame
        self._group.tell([frames.HEAD.pack(len(body), kind, flags, count, number), body])
        outcomes = super()._outcomes(frame, requests)
        self._group.await_all()
        return outcomes


class FollowingLoop(Loop):
    """The loop of another rank: runs what it gets, and says no more than that it has."""

    def _run(self, frame: Frame, received: float) -> None:
        number = frame[3]
        for outcome in self._outcomes(frame, self._requests_of(frame, time.monotonic())):
            if outcome.error is not None and outcome.error is not self._last_told:
                self._last_told = outcome.error
                log.error("Batch %d: %s\n%s", number, outcome.error.message, outcome.error.traceback)
        self._runner.context.metrics.drain()  # those of the first rank count
        self._stream.send([frames.HEAD.pack(0, frames.ANSWER, 0, 0, number)])

    def _send_pieces(self, values: Mapping[int, object], status: int, phrase: str) -> None:
        """Only the first rank answers."""


def follow(path: str, token: str, rank: int) -> int:
    """Be another rank than the first; return the exit code."""
    sock = _reach(path)
    hello = {"version": frames.WIRE_VERSION, "token": token, "rank": rank, "pid": os.getpid()}
    send_all(sock, [frames.encode_message(frames.HELLO, hello)])
    reader = frames.FrameReader()
    found, descriptors = receive_with_descriptors(sock, reader, 1)
    halves = map_arena(descriptors[0], int(str(frames.decode_message(found[0][4])["arena_bytes"])))
    close_all(descriptors)
    stream = WorkerStream(sock)
    order = next_frame(stream, reader, found[1:])
    if order is None:
        return EXIT_RANK_LOST
    told = frames.decode_message(order[1])
    if told.get("devices"):
        told["gpu_id"] = rank
    words = memoryview(bytearray(page.PAGE_SIZE)).cast("Q")  # nobody reads this one
    outcome = load(told, words)
    if outcome.runner is None:
        print(outcome.message["traceback"] or outcome.message["message"], file=sys.stderr, flush=True)
    stream.send([frames.encode_message(frames.LOADED, outcome.message)])
    if outcome.runner is None:
        stream.receive()  # until the first rank has told the server: torchrun ends it as soon as this one ends
        return EXIT_LOAD_FAILED
    if FollowingLoop(stream, reader, words, halves, outcome.runner).serve():
        return EXIT_OK
    log.error("Rank 0 is gone.")
    return EXIT_RANK_LOST


def _reach(path: str) -> socket.socket:
    """Connect to the first rank; it listens soon, or torchrun ends this process with it."""
    while True:
        try:
            return connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(PAUSE)
