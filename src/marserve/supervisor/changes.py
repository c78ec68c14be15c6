"""Waiting for what becomes of workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """Who waits for a change of one pool."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        """Something has changed: let all who wait look."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return once ``is_so`` holds; it is asked again after each change."""
        while not is_so():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
