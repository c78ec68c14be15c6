"""One connection to the inference door, without sockets and workers."""

from __future__ import annotations

from http_fakes import FakeLoop, FakeTransport, post

from marserve.doors.auth import Keys
from marserve.doors.http.application import HttpApplication
from marserve.doors.http.asgi import AsgiBridge
from marserve.doors.http.connection import Connection, Limits
from marserve.doors.http.dialects import NATIVE
from marserve.doors.http.heads import Heads
from marserve.doors.http.inference import InferenceDoor
from marserve.metrics.collector import Collector
from marserve.planes.inference import InferencePlane

ASKED = post(b"/x/y", b"{}")


class Caller:
    """One connection to the inference door, which knows the heads that have come before."""

    def __init__(self, plane: InferencePlane, keys: Keys | None = None) -> None:
        self.registry = plane._registry
        self.door = InferenceDoor(plane, NATIVE, Collector(), 100_000, b"", keys)
        application = HttpApplication(None, self.door, NATIVE, Collector())  # type: ignore[arg-type]
        self.heads = Heads(application.lane)
        self.transport = FakeTransport()
        bridge = AsgiBridge(application, 1000)
        self.connection = Connection(
            application, bridge, Limits(), FakeLoop(), self.heads, lambda _: None, lambda _: None
        )  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def ask(self, request: bytes = ASKED) -> tuple[int, bytes]:
        """Return status and body."""
        self.transport.out.clear()
        self.connection.data_received(request)
        head, _, body = bytes(self.transport.out).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body
