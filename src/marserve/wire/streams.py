"""The wire's only sockets: connecting a worker, sending whole frames, and passing descriptors beside them."""

import array
import os
import socket
from typing import List, Optional, Sequence, Tuple

from marserve.errors import RemoteProtocolError
from marserve.wire.frames import Bytes, FrameReader

#: Read at once: what a gathered batch of small requests fits into.
CHUNK = 256 * 1024
#: Most pieces that one ``sendmsg`` takes (IOV_MAX is 1024 on Linux and macOS).
MOST_PIECES = 512


def connect(path: str) -> socket.socket:
    """Connect a worker to the server's gate."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def send_all(sock: socket.socket, pieces: Sequence[Bytes]) -> None:
    """Send all pieces on a blocking socket; joined when small, gathered by the kernel when not."""
    size = sum(map(len, pieces))
    if size <= CHUNK:
        sock.sendall(b"".join(pieces))
        return
    views = [memoryview(piece) for piece in pieces if len(piece)]
    while views:
        sent = sock.sendmsg(views[:MOST_PIECES])
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if sent:
            views[0] = views[0][sent:]


def send_with_descriptors(sock: socket.socket, frame: bytes, descriptors: List[int]) -> None:
    """Send one frame and, with its first byte, descriptors (the socket blocks, or the frame is small)."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    sent = sock.sendmsg([frame], rights)
    if sent != len(frame):
        raise OSError("A greeting did not fit into the socket's buffer.")


def receive_with_descriptors(
    sock: socket.socket, reader: FrameReader, most: int
) -> Tuple[List[Tuple[int, int, int, int, bytes]], List[int]]:
    """Receive the greeting with up to ``most`` descriptors; return it, with what came close behind, and them.

    Raises:
        RemoteProtocolError: the other side closed.
    """
    descriptors: List[int] = []
    while True:
        data, rights, _flags, _address = sock.recvmsg(CHUNK, socket.CMSG_SPACE(4 * most))
        if not data:
            raise RemoteProtocolError("The server closed the link before it had greeted the worker.")
        for level, kind, payload in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                got = array.array("i")
                got.frombytes(payload[: len(payload) - len(payload) % got.itemsize])
                descriptors.extend(got)
        found = reader.feed(data)
        if found:
            return found, descriptors


class Inbox:
    """Receives into one buffer that stays: a fresh one for each call would be mapped, shrunk and unmapped."""

    __slots__ = ("_buffer", "_receive", "_view")

    def __init__(self, sock: socket.socket) -> None:
        self._receive = sock.recv_into
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)

    def receive(self, flags: int = 0) -> bytes:
        """Return what is there, b"" at the end of the stream.

        Raises:
            BlockingIOError: nothing is there, and the socket or the flags say not to wait.
            OSError: the connection is broken.
        """
        return bytes(self._view[: self._receive(self._buffer, 0, flags)])


class WorkerStream:
    """The worker's end of a link."""

    __slots__ = ("_inbox", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inbox = Inbox(sock)

    def receive(self, looks: int = 0) -> bytes:
        """Return the next bytes, b"" at the end of the stream; waits for them after so many looks without."""
        receive = self._inbox.receive
        for _ in range(looks):
            try:
                return receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
        return receive()

    def receive_now(self) -> bytes:
        """Return bytes that are there already, b"" when none are."""
        try:
            return self._inbox.receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def send(self, pieces: Sequence[Bytes]) -> None:
        """Send frames, waiting while the server is slow to read."""
        send_all(self._sock, pieces)

    def fileno(self) -> int:
        """Return the descriptor, for an event loop to watch."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the link; the server sees the end of the stream."""
        self._sock.close()


def next_frame(
    stream: WorkerStream, reader: FrameReader, found: List[Tuple[int, int, int, int, bytes]]
) -> Optional[Tuple[int, bytes]]:
    """Return the next frame's kind and body, None at the end of the stream; nothing may be under way behind it.

    Args:
        found: what has been read already.
    """
    while not found:
        data = stream.receive()
        if not data:
            return None
        found = reader.feed(data)
    return found[0][0], found[0][4]


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody will use any more."""
    for descriptor in descriptors:
        os.close(descriptor)
