"""A listener: one bound address whose connections serve one application; it binds, sweeps and drains."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from pathlib import Path
from time import monotonic

from marserve.config.address import Address
from marserve.doors.http.asgi import AsgiBridge
from marserve.doors.http.connection import Connection
from marserve.doors.http.heads import Heads
from marserve.doors.http.lane import Application, Limits
from marserve.errors import ConfigError

logger = logging.getLogger("marserve.http")

#: Connections that the system holds ready for us; the clients of a burst beyond it must try again.
_BACKLOG = 2048
_SWEEP_INTERVAL = 1.0
_SWEEP_INTERVAL_DRAINING = 0.1
#: Turns in which the loop tells connections that they have been cut, or that it had accepted them before.
_LAST_TURNS = 4
#: Longest wait for the goodbye of a TLS client, seconds; the event loop's own is 30.
_TLS_SHUTDOWN_TIMEOUT = 5.0


class Listener:
    """Serves one application on one address.

    Args:
        application: what is served.
        limits: what one client may take.
        name: what the listener is for; ``<name>_address`` is the setting that its errors name.
    """

    def __init__(self, application: Application, limits: Limits, *, name: str) -> None:
        self._application = application
        self._limits = limits
        self._name = name
        self._connections: set[Connection] = set()
        self._heads = Heads(application.lane)
        self._bridge = AsgiBridge(application, limits.body_bytes)
        self._server: asyncio.Server | None = None
        self._socket_file: tuple[Path, int] | None = None  # path and inode
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._is_draining = False
        self._emptied = asyncio.Event()

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._connections)

    @property
    def exchange_count(self) -> int:
        """Requests whose answers are not complete."""
        return sum(connection.pending_count for connection in self._connections)

    async def open(self, address: Address, ssl_context: ssl.SSLContext | None = None) -> str:
        """Listen on an address; return it as text, with the port that the system chose when it was 0.

        Raises:
            ConfigError: the address cannot be bound, or it is https and there is no ``ssl_context`` or the reverse.
        """
        if address.is_tls != (ssl_context is not None):
            raise ConfigError(
                f"{self._name}_address is {address}, but {'no' if address.is_tls else 'a'} TLS certificate is set.",
                "https:// needs certificate_file and private_key_file; http:// and unix: go without.",
            )
        try:
            self._server = await self._bind(address, ssl_context)
        except OSError as error:
            raise self._cannot_bind(address, error) from error
        self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_INTERVAL, self._sweep)
        if address.scheme == "unix":
            return str(address)
        self._bridge.scheme = address.scheme
        self._bridge.server = server = self._server.sockets[0].getsockname()[:2]
        return str(Address(address.scheme, address.host, server[1]))

    async def _bind(self, address: Address, ssl_context: ssl.SSLContext | None) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if address.scheme == "unix":
            path = Path(address.path)
            _remove_stale_socket(path)
            server = await loop.create_unix_server(self._connect, path, backlog=_BACKLOG)
            self._socket_file = (path, path.stat().st_ino)
            return server
        return await loop.create_server(
            self._connect,
            address.host,
            address.port,
            backlog=_BACKLOG,
            ssl=ssl_context,
            ssl_shutdown_timeout=_TLS_SHUTDOWN_TIMEOUT if ssl_context else None,
        )

    def _cannot_bind(self, address: Address, error: OSError) -> ConfigError:
        setting = f"{self._name}_address"
        if error.errno == errno.EADDRINUSE:
            hint = f"Stop what listens there, or set {setting} to another port or path."
        elif error.errno == errno.EEXIST:
            hint = f"It is no socket. Remove it, or set {setting} to another path."
        elif error.errno == errno.EACCES:
            hint = f"Set {setting} to a port from 1024 on, or to a path in a folder that may be written to."
        else:
            hint = f"Set {setting} to an address of this machine."
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        return ConfigError(f"{setting} {address} cannot be listened on: {reason}.", hint)

    def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return Connection(self._application, self._bridge, self._limits, loop, self._heads, self._made, self._lost)

    def _made(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self._is_draining:
            connection.drain()

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    def _sweep(self) -> None:
        interval = _SWEEP_INTERVAL_DRAINING if self._is_draining else _SWEEP_INTERVAL
        self._sweep_timer = asyncio.get_running_loop().call_later(interval, self._sweep)
        now = monotonic()
        for connection in tuple(self._connections):
            connection.sweep(now)

    async def drain(self, timeout: float) -> int:
        """Stop listening, answer what has been accepted, and close; return how many requests had to be cut.

        Idle connections close at once; the last answer on each of the others says ``connection: close``.

        Args:
            timeout: longest wait for answers, seconds; what is not answered then is cut.
        """
        self._is_draining = True
        self._stop_listening()
        for connection in tuple(self._connections):
            connection.drain()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep()
        if self._connections:
            self._emptied.clear()
            try:
                await asyncio.wait_for(self._emptied.wait(), timeout)
            except TimeoutError:
                logger.warning("%s: %d requests were not answered in time.", self._name, self.exchange_count)
        cut_count = self.exchange_count
        self.close()
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)
        return cut_count

    def close(self) -> None:
        """Stop listening and cut every connection, at once; may be called again."""
        self._is_draining = True
        self._stop_listening()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for connection in tuple(self._connections):
            connection.cut()
        self._bridge.close()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._socket_file is not None:
            (path, inode), self._socket_file = self._socket_file, None
            try:
                if path.stat().st_ino == inode:  # another server may have taken the path since
                    path.unlink()
            except FileNotFoundError:
                pass


def _remove_stale_socket(path: Path) -> None:
    """Remove the socket that a server which has ended left behind.

    Raises:
        OSError: EADDRINUSE when somebody listens there, EEXIST when it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the path is taken by a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a listener whose backlog is full would block us: it is alive
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "somebody listens there")
