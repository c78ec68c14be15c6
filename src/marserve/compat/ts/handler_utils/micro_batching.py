"""``MicroBatching``: a batch in small parts, so that one part's preprocess runs beside another's inference."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Optional, Sequence

HANDLER_METHODS = ["preprocess", "inference", "postprocess"]


class MicroBatching:
    """Takes the place of a handler's ``handle``: ``self.handle = MicroBatching(self, 4)`` in its ``initialize``.

    Each of the three steps has threads of its own. An exception in one of them is raised to the caller.

    Args:
        parent_handler: a ``BaseHandler``.
        micro_batch_size: most requests of a part.
        parallelism: threads of each step; 1 where it names none.
    """

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: Optional[Dict[str, int]] = None
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self.thread_local_data = threading.local()
        self._calls: Dict[str, Callable[[Any], Any]] = {
            name: getattr(parent_handler, name) for name in HANDLER_METHODS
        }
        self._parallelism: Dict[str, int] = {}
        self._pools: Dict[str, ThreadPoolExecutor] = {}
        self.parallelism = dict.fromkeys(HANDLER_METHODS, 1)
        if parallelism:
            self.parallelism = parallelism

    @property
    def parallelism(self) -> Dict[str, int]:
        """The threads of each step; setting it changes the steps that it names.

        Raises:
            ValueError: a step is none of the three, or has no thread.
        """
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: Dict[str, int]) -> None:
        for name, count in parallelism.items():
            if name not in HANDLER_METHODS or count < 1:
                raise ValueError(f"{name}: {count} threads; name {', '.join(HANDLER_METHODS)} with 1 or more each.")
        for name, count in parallelism.items():
            before = self._pools.get(name)
            self._pools[name] = ThreadPoolExecutor(count, thread_name_prefix=name)
            self._parallelism[name] = count
            if before is not None:
                before.shutdown()

    def shutdown(self) -> None:
        """End the threads."""
        for pool in self._pools.values():
            pool.shutdown()

    def handle(self, data: Sequence[Any]) -> List[Any]:
        """Return the answers to ``data`` in their order."""
        size = self.micro_batch_size
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        # Each step's tasks are queued in order and wait only for those of the step before, which has threads of its
        # own: nothing can wait for itself.
        found: List[Future[Any]] = []
        for index, part in enumerate(parts):
            value: Any = part
            for name in HANDLER_METHODS:
                value = self._pools[name].submit(self._run, name, index, value)
            found.append(value)
        return [answer for future in found for answer in future.result()]

    def get_micro_batch_idx(self) -> Optional[int]:
        """Return the number of the part that the calling thread works on, None outside of one."""
        return getattr(self.thread_local_data, "micro_batch_idx", None)

    def _run(self, name: str, index: int, given: Any) -> Any:
        value = given.result() if isinstance(given, Future) else given
        self.thread_local_data.micro_batch_idx = index
        return self._calls[name](value)

    def __call__(self, data: List[Any], context: Any) -> Any:
        """Handle a batch as ``BaseHandler.handle`` does; descriptions and explanations are not parted."""
        from ..torch_handler.base_handler import BaseHandler  # not above: that imports torch

        # Not as its own method: the handler may be none of BaseHandler's and only have what this calls.
        return BaseHandler.handle_by(self.handler, self.handle, data, context)
