"""A gzip stream that can store what does not compress."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, Optional

_LEVEL = 6


class GzipStream:
    """One gzip member in which some parts are deflated and some stored; the library can only do one of both.

    Several members would be simpler, but the old servers' reader stops after the first. Source: RFC 1951, 3.2.4;
    RFC 1952, 2.3.
    """

    _MOST_STORED = 65535

    def __init__(self, out: BinaryIO) -> None:
        self.is_stored = False
        self._out = out
        self._deflate: Optional[zlib._Compress] = None
        self._crc = 0
        self._size = 0
        out.write(b"\x1f\x8b\x08\0" + struct.pack("<I", 0) + b"\0\xff")

    def write(self, data: bytes) -> None:
        """Add bytes, stored or deflated as ``is_stored`` says."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        if not self.is_stored:
            if self._deflate is None:
                self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            self._out.write(self._deflate.compress(data))
            return
        if self._deflate is not None:
            # Ends at a byte, and what is deflated later refers to nothing before the stored part.
            self._out.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
            self._deflate = None
        for start in range(0, len(data), self._MOST_STORED):
            piece = data[start : start + self._MOST_STORED]
            self._out.write(struct.pack("<BHH", 0, len(piece), len(piece) ^ 0xFFFF) + piece)

    def finish(self) -> None:
        """Write the last block and the check sum."""
        last = self._deflate or zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._out.write(last.flush(zlib.Z_FINISH))
        self._out.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
