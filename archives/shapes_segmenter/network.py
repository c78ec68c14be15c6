"""The segmenter's network: a picture in, for each of its points the scores of five classes out."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

#: Background, circle, square, triangle, star.
CLASS_COUNT = 5
#: Channels at half, a quarter, an eighth and a sixteenth of the picture's size.
WIDTHS = (16, 24, 32, 64)


class ShapesSegmenter(nn.Module):
    """A U-Net: ``float32 (batch, 3, height, width)``, values 0..1, to ``float32 (batch, 5, height, width)``.

    Height and width are multiples of 16. On its way down the network sees ever more of the picture and ever less of
    where things are; on its way up it takes that from what the way down has kept. It looks at two by two points at
    once, and scores them at once, which takes far less time than single points would.

    The only class of this file, because the archive's manifest names the file and not the class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(*convolution(above, below), *convolution(below, below))
            for above, below in pairwise((4 * 3, *WIDTHS))
        )
        self.up = nn.ModuleList(
            nn.Sequential(*convolution(below + above, above)) for below, above in pairwise(WIDTHS[::-1])
        )
        self.scores = nn.Conv2d(WIDTHS[0], 4 * CLASS_COUNT, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        level, kept = self.down[0](functional.pixel_unshuffle(pictures, 2)), []
        for stage in self.down[1:]:
            kept.append(level)
            level = stage(functional.max_pool2d(level, 2))
        for stage in self.up:
            level = stage(torch.cat([functional.interpolate(level, scale_factor=2), kept.pop()], 1))
        return functional.pixel_shuffle(self.scores(level), 2)


def convolution(channels: int, width: int) -> tuple[nn.Module, ...]:
    """Return the parts of a convolution of 3 by 3, from ``channels`` to ``width``, that keeps the size."""
    return nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
