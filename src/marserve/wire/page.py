"""The shared page of a local link: a few words of memory that make blame, taking back and timeouts exact.

The worker writes what it does, the server writes what it must not do; each word has one writer, is eight bytes
and aligned, so a reader sees either the old or the new value. A worker on another machine has no page.
"""

import mmap
import os
import tempfile
from typing import Tuple

# What one side watches while the other writes lies on cache lines of its own, eight words each: a word beside it that
# is written again and again would have to travel between the cores every time.

#: Number of the last batch that the worker has started, written before the first step runs.
STARTED = 0
#: The step that runs: index into ``wire.frames.SPANS``.
STEP = 1
#: When the running batch began: nanoseconds of the machine's monotonic clock.
SINCE = 2
#: Number of the last batch whose answers are all made, written before they are sent.
FINISHED = 16
#: Batches up to this number that have not started must not start: the server has given them to others.
TAKEN_BACK = 32
#: Id of the job that the server wants to end while it runs; 0 for none.
CANCEL = 33
#: Number of the last batch whose answers the server has copied out of the arena.
CONSUMED = 34
#: How long the worker looks for work before it blocks, microseconds; the server changes it as workers come and go.
POLL_MICROSECONDS = 35
#: Number of the last batch that the server has sent, or is about to.
SENT = 48

PAGE_SIZE = 4096


def create_shared(name: str, size: int) -> int:
    """Return a descriptor of ``size`` bytes of zeroed shared memory that has no name anywhere."""
    create = getattr(os, "memfd_create", None)
    if create is not None:
        descriptor: int = create(name, os.MFD_CLOEXEC)
    else:  # macOS: an unlinked file does the same
        descriptor, path = tempfile.mkstemp(prefix=name)
        os.unlink(path)
    os.ftruncate(descriptor, size)
    return descriptor


def map_page(descriptor: int) -> Tuple[mmap.mmap, memoryview]:
    """Map a page; return the mapping (keep it) and its words."""
    memory = mmap.mmap(descriptor, PAGE_SIZE)
    return memory, memoryview(memory).cast("Q")
