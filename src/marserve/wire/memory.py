"""Keeps the memory of large bodies in the process: handed back and asked for anew, each page would fault again."""

from __future__ import annotations

import ctypes
import sys

#: glibc's names of its settings, and what they are set to. Blocks of up to 32 MiB (the most that it allows) come from
#: the heap, and up to 64 MiB of free heap stay. By default a body of a megabyte is mapped and unmapped each time.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SETTINGS = ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))


def keep_freed_memory() -> bool:
    """Tell this process's allocator; False where it is not glibc's, which then does as it does."""
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    taken = [set_option(name, value) for name, value in _SETTINGS]
    return all(taken)
