"""Images as tensors, as models that were trained with torchvision expect them; done by Pillow and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

import torch

from marserve.service.vision import with_eight_bits

if TYPE_CHECKING:
    import PIL.Image


def resized(image: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """Return the image with its shorter side ``size`` pixels long; bilinear, each pixel from all that it covers."""
    from PIL import Image

    short, long = sorted(image.size)
    if short == size:
        return image
    other = int(size * long / short)
    shape = (size, other) if image.width <= image.height else (other, size)
    return image.resize(shape, Image.Resampling.BILINEAR)


def center_cropped(image: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """Return the square in the middle; beyond the image it is black."""
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def in_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return the image in RGB; of 16 bits a pixel all shades are kept."""
    return with_eight_bits(image).convert("RGB")


def to_tensor(image: PIL.Image.Image) -> torch.Tensor:
    """Return float32 (3, height, width), values 0..1; other modes than RGB are converted."""
    import numpy as np

    pixels = np.array(in_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)


class ImageNetProcessing:
    """Resize, crop the middle, and normalise by channel, as networks trained on ImageNet expect."""

    def __init__(
        self,
        size: int = 256,
        crop: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        deviation: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.size = size
        self.crop = crop
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.deviation = torch.tensor(deviation).view(-1, 1, 1)

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Return float32 ``(3, crop, crop)``."""
        # In RGB first: Pillow resizes an image with a palette by its nearest pixels.
        pixels = to_tensor(center_cropped(resized(in_rgb(image), self.size), self.crop))
        return (pixels - self.mean) / self.deviation
