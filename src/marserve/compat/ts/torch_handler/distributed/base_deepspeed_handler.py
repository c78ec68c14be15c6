"""``BaseDeepSpeedHandler``: what handlers with DeepSpeed stand on."""

from __future__ import annotations

import abc
import os
from typing import Any

from ..base_handler import BaseHandler


class BaseDeepSpeedHandler(BaseHandler, abc.ABC):
    """A handler in one of several processes; a subclass loads its model, and puts ``get_ds_engine`` around it."""

    def initialize(self, ctx: Any) -> None:
        """Set ``device`` to the number of this process's GPU; nothing is loaded."""
        self.device = int(os.getenv("LOCAL_RANK", "0"))
