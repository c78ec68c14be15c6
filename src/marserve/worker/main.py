"""The worker process: connects back to the server, loads one archive, and runs batches until told to stop."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import platform
import signal
import sys
from typing import Dict, List, Optional, Tuple

from marserve import logs
from marserve.wire import frames, page
from marserve.wire.arena import map_arena
from marserve.wire.protocol import WORKER, next_state
from marserve.wire.streams import WorkerStream, close_all, connect, receive_with_descriptors, send_all

#: Exit codes, told apart in the server's log.
EXIT_OK, EXIT_LINK_LOST, EXIT_LOAD_FAILED = 0, 3, 4


def main() -> None:
    """Run a worker as its environment says, and end the process."""
    follow_parent(int(os.environ.pop("MARSERVE_PARENT", "0")))
    gate = os.environ.pop("MARSERVE_GATE")
    token = os.environ.pop("MARSERVE_TOKEN")
    logs.configure()
    faulthandler.enable()  # a crash in compiled code leaves the line of Python that it happened in
    # Ctrl-C in a terminal reaches the whole group; the server decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(run(gate, token))


def follow_parent(parent: int) -> None:
    """Make the system kill this process when the server dies, however it dies (Linux)."""
    if sys.platform != "linux":
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:  # it died before the call above
        os._exit(EXIT_LINK_LOST)


def run(gate: str, token: str) -> int:
    """Connect, say hello, load, serve; return the exit code."""
    sock = connect(gate)
    hello: Dict[str, object] = {
        "version": frames.WIRE_VERSION,
        "token": token,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "capabilities": ["page", "arena"],
    }
    send_all(sock, [frames.encode_message(frames.HELLO, hello)])
    reader = frames.FrameReader()
    found, descriptors = receive_with_descriptors(sock, reader, 2)
    state = next_state(WORKER, "open", found[0][0])
    welcome = frames.decode_message(found[0][4])
    _memory, words = page.map_page(descriptors[0])
    halves = map_arena(descriptors[1], int(str(welcome["arena_bytes"])))
    close_all(descriptors)

    stream = WorkerStream(sock)
    order = _next_frame(stream, reader, found[1:])
    if order is None:
        return EXIT_LINK_LOST
    state = next_state(WORKER, state, order[0])
    if state == "closed":
        return EXIT_OK
    # Imported here: a worker that is not let in never pays for it.
    from marserve.worker.loop import Loop, load

    told = frames.decode_message(order[1])
    logs.configure(str(told.get("log_level", "info")))
    outcome = load(told, words)
    stream.send([frames.encode_message(frames.LOADED, outcome.message)])
    if outcome.runner is None:
        return EXIT_LOAD_FAILED
    make = Loop
    if outcome.runner.entry.is_async:
        from marserve.worker.asynchronous import AsyncLoop

        make = AsyncLoop
    return EXIT_OK if make(stream, reader, words, halves, outcome.runner).serve() else EXIT_LINK_LOST


def _next_frame(
    stream: WorkerStream, reader: frames.FrameReader, found: List[Tuple[int, int, int, int, bytes]]
) -> Optional[Tuple[int, bytes]]:
    """Return the next frame's kind and body, None at the end of the stream. Nothing else is under way yet."""
    while not found:
        data = stream.receive()
        if not data:
            return None
        found = reader.feed(data)
    return found[0][0], found[0][4]


if __name__ == "__main__":
    main()
