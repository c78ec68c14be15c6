"""``MXNetVisionServiceBatching``: another name of ``MXNetVisionService``, which takes batches here."""

from __future__ import annotations

from typing import Any

from mxnet_vision_service import MXNetVisionService


class MXNetVisionServiceBatching(MXNetVisionService):
    """Takes batches, of which a picture that is none fails alone."""


_service = MXNetVisionServiceBatching()


def handle(data: Any, context: Any) -> Any:
    """Load the model in the first call, which has no data; answer a batch in all others."""
    if not _service.initialized:
        _service.initialize(context)
    return None if data is None else _service.handle(data, context)
