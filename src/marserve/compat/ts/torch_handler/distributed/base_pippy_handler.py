"""``BasePippyHandler``: what handlers with PiPPy stand on."""

from __future__ import annotations

import abc
import os
from typing import Any

import torch

from ...handler_utils.distributed.pt_pippy import initialize_rpc_workers
from ..base_handler import BaseHandler


class BasePippyHandler(BaseHandler, abc.ABC):
    """A handler in one of several processes; a subclass loads its model, and makes a pipeline of it."""

    def initialize(self, ctx: Any) -> None:
        """Join the processes that torchrun has started, and set ``device`` to the number of this one's GPU."""
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.world_size = int(os.environ["WORLD_SIZE"])
        self.device = self.local_rank % torch.cuda.device_count()
        initialize_rpc_workers(self.local_rank, self.world_size, ctx)
