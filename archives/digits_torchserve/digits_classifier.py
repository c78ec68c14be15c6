"""The digits network behind TorchServe's ``image_classifier``, which prepares images as for ImageNet's networks."""

from typing import Final

import torch
from network import DigitsNetwork

#: How much of red, green and blue is brightness (ITU-R 601), and what the handler has divided each by.
BRIGHTNESS, DEVIATION = (0.299, 0.587, 0.114), (0.229, 0.224, 0.225)


class DigitsClassifier(DigitsNetwork):
    """Finds the digit of each image and scores it: ``float32 (batch, 3, 224, 224)`` to ``float32 (batch, 10)``.

    Its weights are those of the digits network. It is made of operations on whole batches, so that an explanation
    can follow them from the scores back to the points of the image.
    """

    SIDE: Final[int] = 8
    #: What is darker than this share of the darkest point belongs to the digit; the rest is paper and compression.
    LEAST_INK: Final[float] = 0.2
    #: Darkness, 0..1, from which on ink is as dark as the network can see. Below it a digit fades, down to blank
    #: paper: explanations begin there, and without the way in between they would explain nothing.
    FULL_INK: Final[float] = 0.1

    def __init__(self) -> None:
        super().__init__()
        shares = torch.tensor(BRIGHTNESS) * torch.tensor(DEVIATION)
        # Not among the weights, which are those of the archive digits as they are.
        self.register_buffer("shares", shares[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores(self.features(self.digits(images)))

    def digits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the digits as the network's data shows them: ``float32 (batch, 1, 8, 8)``, ink 1 on 0."""
        # The mean that the handler has taken away is the same everywhere: the difference to the paper has none of it.
        brightness = (images * self.shares).sum(1)
        paper = torch.cat([brightness[:, 0], brightness[:, -1], brightness[:, :, 0], brightness[:, :, -1]], 1)
        darker = paper.mean(1)[:, None, None] - brightness
        # Ink is what differs most from the border, which is mostly paper.
        is_dark = darker.amax((1, 2), keepdim=True) >= -darker.amin((1, 2), keepdim=True)
        small = self.cut_out(torch.where(is_dark, darker, -darker).clamp(min=0))
        return (small / small.amax((1, 2), keepdim=True).clamp(min=self.FULL_INK))[:, None]

    def cut_out(self, ink: torch.Tensor) -> torch.Tensor:
        """Return the square around each image's digit as 8 by 8 means; beyond the image there is paper."""
        is_digit = ink > self.LEAST_INK * ink.amax((1, 2), keepdim=True)
        top, bottom = self.bounds(is_digit.any(2))
        left, right = self.bounds(is_digit.any(1))
        side = torch.maximum(bottom - top, right - left)
        down = self.shares_of_places((top + bottom - side) / 2, side, ink.shape[1])
        across = self.shares_of_places((left + right - side) / 2, side, ink.shape[2])
        return down @ ink @ across.transpose(1, 2)

    def bounds(self, is_digit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where each row of ``bool (batch, length)`` is first true, and behind where it last is.

        A row without anything true is taken for one that is true from end to end.
        """
        first = is_digit.int().argmax(1)
        return first, is_digit.shape[1] - is_digit.flip([1]).int().argmax(1)

    def shares_of_places(self, start: torch.Tensor, side: torch.Tensor, length: int) -> torch.Tensor:
        """Return how much of each of ``length`` points is in the mean of each eighth: ``(batch, 8, length)``.

        The eighths are those of the stretch of ``side`` points from ``start`` on, which may begin inside a point.
        """
        step = (side / self.SIDE)[:, None, None]
        edges = start[:, None, None] + step * torch.arange(self.SIDE, device=start.device)[:, None]
        places = torch.arange(length, device=start.device)
        shared = torch.minimum(edges + step, places + 1) - torch.maximum(edges, places)
        return shared.clamp(min=0) / step
