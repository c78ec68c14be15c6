"""The digits network: a picture of 8 by 8 points in, the scores of ten digits out."""

import torch
from torch import nn


class DigitsNetwork(nn.Module):
    """Two convolutions and two layers: ``float32 (batch, 1, 8, 8)``, values 0..1, to ``float32 (batch, 10)``.

    The only class of this file, because the archive's manifest names the file and not the class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
        )
        self.scores = nn.Sequential(nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.scores(self.features(pictures))
