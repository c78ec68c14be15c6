"""Classes by name, and answers in pieces."""

from __future__ import annotations

import importlib
from typing import Any, Optional

from ..protocol.otf_message_handler import create_predict_response, send_intermediate_predict_response

__all__ = ["create_predict_response", "import_class", "send_intermediate_predict_response"]


def import_class(class_name: str, module_prefix: Optional[str] = None) -> Any:
    """Return a class by its dotted name, below ``module_prefix`` if that is given.

    Raises:
        ImportError: there is no such module or class.
    """
    module_name, _, name = (class_name or "").rpartition(".")
    dotted = ".".join(part for part in (module_prefix, module_name) if part)
    if not name or not dotted:
        raise ImportError(f"{class_name!r} does not name a class of a module.")
    found = getattr(importlib.import_module(dotted), name, None)
    if found is None:
        raise ImportError(f"class:{name} not found in module:{dotted}.")
    return found
