"""The pid file of a server, and whether that server still lives.

The server holds a lock on its pid file for as long as it runs. The lock goes with the process, however it ends,
so a file left behind by a killed server never stands for whichever process has its number now.
"""

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

from marserve.errors import ConfigError

#: Seconds between two looks at a lock that somebody else holds.
_PAUSE = 0.05


class AlreadyRunningError(ConfigError):
    """A living server holds the pid file; ``pid`` is its number."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(
            f"A server is running already: pid {pid} holds {path}.",
            f"Stop it with `marserve stop --pid-file {path}`, or give this one a --pid-file of its own.",
        )
        self.pid = pid


class PidFile:
    """A pid file that this process, or the server that it starts, holds.

    Attributes:
        path: where it lies.
        descriptor: carries the lock; a process that inherits it holds the lock too.
        replaced_orphan: whether a server that did not end by itself had left the file behind.
    """

    def __init__(self, path: Path, descriptor: int, replaced_orphan: bool = False) -> None:
        self.path = path
        self.descriptor = descriptor
        self.replaced_orphan = replaced_orphan

    @classmethod
    def claim(cls, path: Path) -> "PidFile":
        """Take the file for a new server, with this process's number in it for now.

        Raises:
            AlreadyRunningError: a living server holds it.
            ConfigError: it cannot be written.
        """
        while True:
            descriptor = _open(path, os.O_RDWR | os.O_CREAT)
            if not _lock(descriptor, fcntl.LOCK_EX):
                pid = _read(descriptor)[0]
                os.close(descriptor)
                raise AlreadyRunningError(path, pid)
            if _is_at(path, descriptor):
                break
            os.close(descriptor)  # its owner removed it between the open and the lock
        held = cls(path, descriptor, replaced_orphan=os.fstat(descriptor).st_size > 0)
        held.record(os.getpid())
        return held

    def record(self, pid: int, addresses: Sequence[str] = ()) -> None:
        """Write the server's number, and below it a line for each address: its doors, a blank, the address."""
        text = "\n".join([str(pid), *addresses])
        os.pwrite(self.descriptor, text.encode(), 0)
        os.ftruncate(self.descriptor, len(text.encode()))

    def hand_over(self) -> None:
        """Let go of the file, which another process holds by now."""
        os.close(self.descriptor)

    def release(self) -> None:
        """Remove the file: the server has ended. The lock stays until this process has ended too."""
        if _is_at(self.path, self.descriptor):
            self.path.unlink()


class FoundServer:
    """The server that a pid file speaks of. Close it when done.

    Attributes:
        pid: its number, 0 if the file holds none.
        addresses: (doors, address) of each listener, as far as the file tells.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.pid, self.addresses = _read(descriptor)

    def is_alive(self) -> bool:
        """Tell whether the server still runs."""
        if not _lock(self._descriptor, fcntl.LOCK_SH):
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    def wait_for_end(self, timeout: float) -> bool:
        """Wait until the server has ended, at most ``timeout`` seconds; tell whether it has."""
        deadline = time.monotonic() + timeout
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def remove_file(self) -> None:
        """Remove what a server that has ended did not remove itself."""
        if not self.is_alive() and _is_at(self._path, self._descriptor):
            self._path.unlink()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def find_server(path: Path) -> FoundServer | None:
    """Return the server that a pid file speaks of, alive or not; None without a file.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return FoundServer(path, _open(path, os.O_RDONLY))
    except FileNotFoundError:
        return None


def _open(path: Path, flags: int) -> int:
    try:
        # No links: in a folder that all may write to, another user could point one at a file of ours.
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        if flags & os.O_CREAT:
            raise ConfigError(f"The pid file {path} cannot be made: its folder is not there.") from None
        raise
    except OSError as error:
        raise ConfigError(
            f"The pid file {path} cannot be opened: {error.strerror}.", "Name another with --pid-file."
        ) from None


def _lock(descriptor: int, kind: int) -> bool:
    """Take a lock without waiting; tell whether it could be had."""
    for is_last in (False, True):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not is_last:
                time.sleep(_PAUSE)  # `marserve status` holds it too, for an instant
        else:
            return True
    return False


def _read(descriptor: int) -> tuple[int, list[tuple[str, str]]]:
    first, *rest = os.pread(descriptor, 65536, 0).decode("utf-8", "replace").splitlines() or [""]
    addresses = [(doors, address) for doors, _, address in (line.partition(" ") for line in rest)]
    return int(first) if first.strip().isdecimal() else 0, addresses


def _is_at(path: Path, descriptor: int) -> bool:
    """Tell whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
