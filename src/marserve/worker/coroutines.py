"""The event loop of a service that is written with ``async def``: one a process, from its load to its end."""

from __future__ import annotations

import atexit
import inspect
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    import asyncio

_loops: List[asyncio.AbstractEventLoop] = []


def service_loop() -> asyncio.AbstractEventLoop:
    """Return the loop. What ``initialize`` opens on it (sessions, engines, tasks) is there when batches run."""
    if not _loops:
        import asyncio  # here: most workers never need it, and it takes longer to import than all else of theirs

        _loops.append(asyncio.new_event_loop())
        atexit.register(_loops[0].close)
    return _loops[0]


def finished(result: Any) -> Any:
    """Return a result, or for a coroutine what it comes to: for steps that nothing runs beside."""
    if not inspect.isawaitable(result):
        return result
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    run = service_loop().run_until_complete
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run(result)
    with ThreadPoolExecutor(1) as beside:  # in a notebook, whose own loop runs in this thread
        return beside.submit(run, result).result()
