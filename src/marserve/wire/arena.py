"""The arena of a local link: shared memory for bodies too large to be worth sending through a socket.

The server writes requests into the first half, the worker answers into the second; each half has one writer,
which allocates from it as from a ring. Regions are given back in the order in which they were taken, which is
the order of batches. A half that is empty starts again at its beginning, so the memory that is used stays the
same few megabytes: already faulted in, and warm in the caches.
"""

import mmap
from collections import deque
from typing import Deque, List, Optional

#: Bodies of at least this many bytes go through the arena: below, a socket copies faster than two ends agree.
ARENA_THRESHOLD = 64 * 1024


class Ring:
    """Allocates regions of ``size`` bytes in ring order; values only, no memory behind it."""

    __slots__ = ("_head", "_regions", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._head = 0
        #: offset, end and owner of each region, oldest first
        self._regions: Deque[List[int]] = deque()

    def take(self, length: int, owner: int) -> Optional[int]:
        """Return the offset of a region of ``length`` bytes for ``owner``, or None when there is no room now."""
        if not self._regions:
            self._head = 0
            tail = self._size
        else:
            tail = self._regions[0][0]
        start = self._head
        if self._regions and start <= tail:
            room = tail - start
        elif length <= self._size - start:
            room = self._size - start
        else:  # the end of the ring is too short: go round, if the beginning is free
            start, room = 0, (tail if self._regions else self._size)
        if length > room:
            return None
        self._regions.append([start, start + length, owner])
        self._head = start + length
        return start

    def give_back(self, owner: int) -> None:
        """Free every region of ``owner``; room appears once the regions before them are free too."""
        for region in self._regions:
            if region[2] == owner:
                region[2] = -1
        self._sweep()

    def give_back_until(self, owner: int) -> None:
        """Free every region of owners up to and including ``owner``."""
        while self._regions and self._regions[0][2] <= owner:
            self._regions.popleft()

    def _sweep(self) -> None:
        while self._regions and self._regions[0][2] == -1:
            self._regions.popleft()

    def __len__(self) -> int:
        return len(self._regions)


class Half:
    """One side's half of an arena: the memory, and the ring where this side is the writer."""

    __slots__ = ("_base", "_view", "ring", "size")

    def __init__(self, memory: mmap.mmap, base: int, size: int) -> None:
        self._view = memoryview(memory)
        self._base = base
        self.size = size
        self.ring = Ring(size)

    def write(self, owner: int, pieces: List[bytes], length: int) -> Optional[int]:
        """Copy ``pieces`` into a region of ``owner``; return its offset, or None when there is no room now."""
        offset = self.ring.take(length, owner)
        if offset is None:
            return None
        at = self._base + offset
        for piece in pieces:
            end = at + len(piece)
            self._view[at:end] = piece
            at = end
        return offset

    def view(self, offset: int, length: int) -> memoryview:
        """Return the bytes of a region.

        Raises:
            ValueError: the region is not inside this half; the other side is broken.
        """
        if offset + length > self.size:
            raise ValueError(f"The region {offset}+{length} leaves an arena half of {self.size} bytes.")
        start = self._base + offset
        return self._view[start : start + length]


def map_arena(descriptor: int, size: int) -> List[Half]:
    """Map an arena of ``size`` bytes; return the server's half and the worker's."""
    memory = mmap.mmap(descriptor, size)
    half = size // 2
    return [Half(memory, 0, half), Half(memory, half, half)]
