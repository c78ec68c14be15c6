"""``timeit``: prints how long a function takes."""

from __future__ import annotations

import time
from functools import wraps
from typing import Any, Callable


def timeit(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``func`` with its time printed at each call: by the clock, and of the processor, seconds."""

    @wraps(func)
    def run(*args: Any, **named: Any) -> Any:
        began, used = time.perf_counter(), time.process_time()
        found = func(*args, **named)
        took, worked = time.perf_counter() - began, time.process_time() - used
        print(f"func: {func.__name__!r} took a total of {took:2.4f} sec to run and {worked:2.4f} sec of CPU time")
        return found

    return run
