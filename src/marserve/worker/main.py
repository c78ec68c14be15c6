"""The worker process: connects back to the server, loads one archive, and runs batches until told to stop."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import platform
import signal
import socket
import sys
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional

from marserve import logs
from marserve.wire import frames, page
from marserve.wire.arena import map_arena
from marserve.wire.memory import keep_freed_memory
from marserve.wire.protocol import WORKER, next_state
from marserve.wire.streams import WorkerStream, close_all, connect, next_frame, receive_with_descriptors, send_all
from marserve.worker.exits import EXIT_LINK_LOST, EXIT_LOAD_FAILED, EXIT_OK
from marserve.worker.output import prefix_output

if TYPE_CHECKING:  # what a worker that is not let in never pays for
    from marserve.worker.loop import LoadOutcome
    from marserve.worker.ranks import Group

    #: Makes a service ready as the server tells a worker, and tells on a page what it does.
    TakeOver = Callable[[Mapping[str, object], memoryview], LoadOutcome]


def main() -> None:
    """Run a worker as its environment says, and end the process."""
    parent = int(os.environ.pop("MARSERVE_PARENT", "0"))
    if parent:
        follow_parent(parent)
    gate = os.environ.pop("MARSERVE_GATE")
    token = os.environ.pop("MARSERVE_TOKEN")
    ranks = os.environ.pop("MARSERVE_RANKS", "")
    rank = int(os.environ["LOCAL_RANK"]) if ranks else 0
    if ranks:
        prefix_output(f"[rank {rank}] ")
    stand_by(is_by_hand=not parent)
    if not ranks:
        sys.exit(run(gate, token))
    from marserve.worker.ranks import follow, gather

    if rank:
        sys.exit(follow(ranks, token, rank))
    sys.exit(run(gate, token, gather(ranks, token, int(os.environ["LOCAL_WORLD_SIZE"]))))


def stand_by(is_by_hand: bool = False) -> None:
    """Set up memory, the log, what a crash leaves, and which signals count.

    Args:
        is_by_hand: whether somebody has started this process in a terminal of theirs, and not the server.
    """
    keep_freed_memory()
    logs.configure()
    faulthandler.enable()  # a crash in compiled code leaves the line of Python that it happened in
    if not is_by_hand:
        # Ctrl-C in a terminal reaches the whole group; the server decides when its workers end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def follow_parent(parent: int) -> None:
    """Make the system kill this process when the server dies, however it dies (Linux)."""
    if sys.platform != "linux":
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:  # it died before the call above
        os._exit(EXIT_LINK_LOST)


def say_hello(gate: str, token: str, ranks: Optional[List[int]] = None) -> socket.socket:
    """Connect to the server's gate, and return the socket on which it answers.

    Args:
        ranks: the processes of a worker that is several.
    """
    sock = connect(gate)
    hello: Dict[str, object] = {
        "version": frames.WIRE_VERSION,
        "token": token,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "capabilities": ["page", "arena"],
    }
    if ranks is not None:
        hello["ranks"] = ranks
    send_all(sock, [frames.encode_message(frames.HELLO, hello)])
    return sock


def run(gate: str, token: str, group: Optional[Group] = None, take_over: Optional[TakeOver] = None) -> int:
    """Connect, say hello, load, serve; return the exit code.

    Args:
        group: the other ranks of this worker.
        take_over: what there is instead of loading anything.
    """
    sock = say_hello(gate, token, None if group is None else group.pids)
    reader = frames.FrameReader()
    found, descriptors = receive_with_descriptors(sock, reader, 2)
    state = next_state(WORKER, "open", found[0][0])
    welcome = frames.decode_message(found[0][4])
    _memory, words = page.map_page(descriptors[0])
    arena_bytes = int(str(welcome["arena_bytes"]))
    halves = map_arena(descriptors[1], arena_bytes)
    if group is not None:
        group.welcome(arena_bytes, descriptors[1])
    close_all(descriptors)

    stream = WorkerStream(sock)
    order = next_frame(stream, reader, found[1:])
    if order is None:
        return EXIT_LINK_LOST
    state = next_state(WORKER, state, order[0])
    if state == "closed":
        return EXIT_OK
    # Imported here: a worker that is not let in never pays for it.
    from marserve.worker.loop import Loop, load

    told = frames.decode_message(order[1])
    # The old servers' workers wrote messages alone; the server puts the moment and the worker before them.
    log_format = "text" if told.get("style", "native") == "native" else "bare"
    logs.configure(str(told.get("log_level", "info")), log_format=log_format)
    outcome = (take_over or load)(told, words) if group is None else group.load(told, words, stream)
    if outcome.runner is None:  # before the server hears of it, and ends this process
        print(str(outcome.message["traceback"] or outcome.message["message"]).rstrip(), file=sys.stderr, flush=True)
    stream.send([frames.encode_message(frames.LOADED, outcome.message)])
    if outcome.runner is None:
        return EXIT_LOAD_FAILED
    make = Loop if group is None else group.loop_maker(told)
    if outcome.runner.entry.is_async:
        from marserve.worker.asynchronous import AsyncLoop

        make = AsyncLoop
    was_told = make(stream, reader, words, halves, outcome.runner).serve()
    if was_told and group is not None:
        group.tell([frames.encode_message(frames.STOP, {})])
    return EXIT_OK if was_told else EXIT_LINK_LOST


if __name__ == "__main__":
    main()
