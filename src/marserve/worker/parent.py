"""The parent: the process that loads a service once, and from which the workers of a model version are forked.

It says hello at the gate as a worker does, is told what to load, and then forks a worker for each token that it gets.
A worker is forked twice, so that the process between ends at once and the server becomes its parent in the eyes of
the system: the server then learns of its end and its exit code from the system itself, whatever becomes of this
process. Where nothing may be forked this process becomes the first worker, so that nothing is loaded twice.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import partial
from typing import Dict, List, Optional, Tuple

from marserve import logs
from marserve.errors import RemoteProtocolError
from marserve.wire import frames, page
from marserve.wire.protocol import PARENT, next_state
from marserve.wire.streams import receive_with_descriptors, send_all
from marserve.worker.exits import EXIT_LINK_LOST, EXIT_OK
from marserve.worker.fitness import descriptors, why_unfit
from marserve.worker.forked import end, make_own, take_over
from marserve.worker.loop import load
from marserve.worker.main import follow_parent, run, say_hello, stand_by
from marserve.worker.threads import hold_to_one


class Told:
    """The server's end of the talk: frames with the descriptors that came beside them."""

    def __init__(self, gate: str, token: str) -> None:
        self._sock = say_hello(gate, token)
        self._reader = frames.FrameReader()
        self._state = "open"
        self._frames: List[Tuple[int, bytes]] = []
        self._descriptors: List[int] = []

    def next(self) -> Tuple[int, Dict[str, object]]:
        """Return the next frame's kind and message.

        Raises:
            RemoteProtocolError: the server has closed the talk, or said what may not come now.
        """
        if not self._frames:
            found, got = receive_with_descriptors(self._sock, self._reader, 64)
            self._frames += [(frame[0], frame[4]) for frame in found]
            self._descriptors += got
        kind, body = self._frames.pop(0)
        self._state = next_state(PARENT, self._state, kind)
        return kind, frames.decode_message(body)

    def descriptor(self) -> int:
        """Return the descriptor that came with the frame."""
        return self._descriptors.pop(0)

    def answer(self, kind: int, message: Dict[str, object]) -> None:
        """Tell the server."""
        send_all(self._sock, [frames.encode_message(kind, message)])

    def close(self) -> None:
        """End the talk in this process, with what is left of it."""
        self._sock.close()
        for one in self._descriptors:
            os.close(one)


def main() -> None:
    """Load and fork as the server says, and end the process; in each worker, serve."""
    server = int(os.environ.pop("MARSERVE_PARENT", "0"))
    follow_parent(server)
    gate, token = os.environ.pop("MARSERVE_GATE"), os.environ.pop("MARSERVE_TOKEN")
    said = hold_to_one()
    stand_by()
    told = Told(gate, token)
    try:
        _, order = told.next()
    except RemoteProtocolError:
        sys.exit(EXIT_LINK_LOST)
    logs.configure(str(order.get("log_level", "info")))
    known = set(descriptors())
    outcome = load({**order, "will_fork": True}, memoryview(bytearray(page.PAGE_SIZE)).cast("Q"))
    unfit = why_unfit(outcome.runner.entry, known) if outcome.runner is not None else ""
    told.answer(frames.LOADED, {**outcome.message, "unfit": unfit})
    own, output = _fork_all(told)
    if own is None:
        sys.exit(EXIT_OK)

    def work() -> int:
        if output is not None:
            make_own(output, server)
        told.close()
        return run(gate, own, None, partial(take_over, outcome, said))

    if output is not None:
        end(work)
    sys.exit(work())


def _fork_all(told: Told) -> Tuple[Optional[str], Optional[int]]:
    """Fork workers as long as the server wants any.

    Returns:
        The token of the worker that this process is by now, None if it is none and may end; and where that writes
        its log, None if it was not forked.
    """
    while True:
        try:
            kind, order = told.next()
        except RemoteProtocolError:
            return None, None
        token = str(order["token"])
        if kind == frames.SERVE:
            return token, None
        output = told.descriptor()
        _flush()
        try:
            pid, permit = fork()
        except OSError as error:
            told.answer(frames.FORKED, {"token": token, "error": str(error)})
            os.close(output)
            continue
        if not pid:
            return token, output
        os.close(output)
        told.answer(frames.FORKED, {"token": token, "pid": pid})
        with suppress(BrokenPipeError):  # it has been killed already
            os.write(permit, b"+")
        os.close(permit)


def _flush() -> None:
    """Write out what would else be written by every worker once more."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)


def fork() -> Tuple[int, int]:
    """Fork a grandchild of this process that is nobody's child here.

    Returns:
        Here its process id and the descriptor at which it waits for one byte, so that it does nothing before the
        server knows of it, and ends if this process does; 0 and -1 in the grandchild, once the byte has come.

    Raises:
        OSError: the system has no process or no memory left.
    """
    waiting, permit = os.pipe()
    hearing, telling = os.pipe()
    try:
        between = os.fork()
    except OSError:
        for one in (waiting, permit, hearing, telling):
            os.close(one)
        raise
    if not between:
        _fork_again(telling)
        for one in (permit, hearing, telling):
            os.close(one)
        os.setsid()  # a group of its own: what it starts can be ended with it
        if not os.read(waiting, 1):
            os._exit(EXIT_LINK_LOST)
        os.close(waiting)
        return 0, -1
    os.close(waiting)
    os.close(telling)
    said = int(os.read(hearing, 32) or b"-1")
    os.close(hearing)
    os.waitpid(between, 0)
    if said <= 0:
        os.close(permit)
        raise OSError(-said, os.strerror(-said))
    return said, permit


def _fork_again(telling: int) -> None:
    """Fork, say what came of it, and end this process; return in the new one alone."""
    pid = -1
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    finally:
        if pid:
            try:
                os.write(telling, b"%d" % pid)
            finally:
                os._exit(0)


if __name__ == "__main__":
    main()
