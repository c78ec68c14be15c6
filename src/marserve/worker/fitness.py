"""Whether workers can be forked from a process that has loaded a service, or why not: what a fork would break."""

from __future__ import annotations

import fcntl
import gc
import os
import stat
import sys
import threading
import time
from contextlib import suppress
from typing import Dict, List, Set

from marserve.worker.loader import Entry

#: Seconds that a thread which was joined may still take to be gone.
PATIENCE = 0.1
#: Devices whose state a forked process cannot use.
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/neuron", "/dev/accel")


def why_unfit(entry: Entry, known: Set[int]) -> str:
    """Return why workers cannot be forked from this process as it is, the end of a sentence; "" if they can.

    Args:
        entry: the service that has been loaded.
        known: descriptors that were open before it was.
    """
    opened = {number: path for number, path in descriptors().items() if number not in known}
    if any(path.startswith(_DEVICES) for path in opened.values()):
        return "it has initialised a GPU"
    if entry.is_async:
        return "its handle is written with async def"
    names = _threads()
    if names:
        return f"it has started threads ({', '.join(names)}), which a forked process does not have"
    if _has_children():
        return "it has started processes, which have one parent alone"
    shared = [path for number, path in opened.items() if not _may_be_shared(number)]
    if shared:
        return f"it has opened {', '.join(sorted(shared)[:3])}, which workers would share"
    if _has_sessions() and not callable(getattr(entry.service, "after_fork", None)):
        return "it has an onnxruntime session, which would lose its threads, and no method after_fork to make it anew"
    return ""


def descriptors() -> Dict[int, str]:
    """Return what this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def is_read_only_file(number: int) -> bool:
    """Whether a descriptor is a file that can be opened once more without doing anything to it."""
    reads_only = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    return reads_only and stat.S_ISREG(os.fstat(number).st_mode)


def _may_be_shared(number: int) -> bool:
    """Whether processes may have a descriptor: what is read is opened anew in each, what is appended to is shared."""
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return is_read_only_file(number) or bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND)
    return stat.S_ISCHR(mode) or stat.S_ISDIR(mode)


def _threads() -> List[str]:
    """Return the names of the threads that there are beside the main one."""
    end = time.monotonic() + PATIENCE
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > end:
            return _names()
        time.sleep(0.001)
    return []


def _names() -> List[str]:
    named = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    known = {thread.native_id for thread in threading.enumerate()}
    for task in os.listdir("/proc/self/task"):
        if int(task) not in known:
            with suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:
                named.append(f"{file.read().strip()}, not of Python")
    return list(dict.fromkeys(named))[:5] or ["gone by now"]


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _has_sessions() -> bool:
    """Whether there is a session of onnxruntime, whoever holds it."""
    session = getattr(sys.modules.get("onnxruntime"), "InferenceSession", None)
    if session is None:
        return False
    gc.unfreeze()  # what is frozen is not listed
    try:
        # Not isinstance: objects that stand for others are asked what they are by it, and some do things then.
        return any(issubclass(type(one), session) for one in gc.get_objects())
    finally:
        gc.freeze()
