"""What a rank prints, line by line with its number: several processes write to the same pipe."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Prefixed(io.RawIOBase):
    """Writes to a descriptor, with a prefix at the beginning of each line."""

    def __init__(self, descriptor: int, prefix: bytes) -> None:
        self._descriptor = descriptor
        self._prefix = prefix
        self._is_at_start = True

    def writable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def fileno(self) -> int:
        """See ``io.RawIOBase``."""
        return self._descriptor

    def write(self, data: Any) -> int:
        """See ``io.RawIOBase``; all of it is written, in one piece where the system takes it."""
        text = bytes(data)
        pieces = []
        for line in text.splitlines(keepends=True):
            pieces.append(self._prefix + line if self._is_at_start else line)
            self._is_at_start = line.endswith(b"\n")
        rest = memoryview(b"".join(pieces))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return len(text)


def prefix_output(prefix: str) -> None:
    """Put a prefix before each line that this process prints from now on; what compiled code writes has none."""
    sys.stdout, sys.stderr = prefixed(1, prefix), prefixed(2, prefix)


def prefixed(descriptor: int, prefix: str) -> io.TextIOWrapper:
    """Return a text stream to a descriptor with a prefix before each line."""
    raw = _Prefixed(descriptor, prefix.encode())
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
