"""The FizBuz network: ten bits of a number in, the scores of four words out."""

import torch
from torch import nn


class FizBuzNetwork(nn.Module):
    """Two layers, 10 → 100 → 4: ``float32 (batch, 10)``, values 0 or 1, to ``float32 (batch, 4)``.

    The only class of this file, because the archive's manifest names the file and not the class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(10, 100)
        self.scores = nn.Linear(100, 4)

    def forward(self, bits: torch.Tensor) -> torch.Tensor:
        return self.scores(torch.relu(self.hidden(bits)))
