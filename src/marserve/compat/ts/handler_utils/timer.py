"""``timed``: how long a handler's method takes, as a metric."""

from __future__ import annotations

import functools
import sys
import time
from typing import Any, Callable, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def timed(func: Method) -> Method:
    """Report the method's time as ``ts_handler_<name>``, ms, if ``model-config.yaml`` has ``handler: profile: true``.

    On a GPU what the method has begun there is waited for, so that it counts.
    """

    @functools.wraps(func)
    def call(self: Any, *args: Any, **named: Any) -> Any:
        config = getattr(self.context, "model_yaml_config", None) or {}
        if not (config.get("handler") or {}).get("profile"):
            return func(self, *args, **named)
        began = time.perf_counter()
        result = func(self, *args, **named)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.context.metrics.add_time(f"ts_handler_{func.__name__}", (time.perf_counter() - began) * 1000)
        return result

    return cast(Method, call)
