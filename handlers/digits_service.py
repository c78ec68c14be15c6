"""The handler of ``digits``: reads one handwritten digit from an image of any size, or from 8 by 8 numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from marserve.service.torch import TorchService
from marserve.service.vision import VisionService

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marserve.service.inputs import Input

#: The pictures that the network knows: their side, and the number for a point that is all ink.
SIDE, FULL = 8, 16
ANSWERS = 5
#: Larger images are made smaller first; more points would not change 8 by 8 of them.
LARGEST_SIDE = 256
#: What is darker than this share of the darkest point belongs to the digit; the rest is paper and compression.
LEAST_INK = 0.2
#: Images whose brightest and darkest points are closer than this, of 255, are blank.
LEAST_CONTRAST = 25


class DigitsService(VisionService, TorchService):
    """Gives the five most likely labels with their probabilities, ``{"3": 0.99, …}``, the most likely first."""

    def prepare_image(self, wanted: Input, image: Image.Image) -> Image.Image:
        """Return an image as the network's data would show it: 8 by 8 points, ink 255 on 0.

        Raises:
            InvalidData: it is blank.
        """
        points = np.asarray(in_grey(image), dtype=np.float32)
        if np.ptp(points) < LEAST_CONTRAST:
            wanted.refuse("a blank image, in which there is no digit")
        return as_digit(points)

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """Return the batch's pictures as the network takes them: ``float32 (batch, 1, 8, 8)``, values 0..1."""
        return super().preprocess(data)[:, None] / FULL

    def postprocess(self, data: Any) -> list[dict[str, float]]:
        """Return the most likely labels of each picture."""
        probabilities, labels = data.softmax(1).topk(ANSWERS)
        pairs = zip(labels.tolist(), probabilities.tolist(), strict=True)
        return [{str(label): share for label, share in zip(*pair, strict=True)} for pair in pairs]


def in_grey(image: Image.Image) -> Image.Image:
    """Return an image in 256 shades of grey, upright, on white where it is transparent, at most 256 points a side."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a point, of which Pillow would keep the lower eight
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    grey = image.convert("L")
    grey.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BOX)
    return grey


def as_digit(points: NDArray[np.float32], least_ink: float = LEAST_INK, margin: float = 0.0) -> Image.Image:
    """Return a picture like those of the data: the digit fills a square of 8 by 8 points, ink 255 on 0.

    Whether ink is dark or light is told by the image's border, which is mostly paper.

    Args:
        points: shades of grey, ``float32 (height, width)``, not all the same.
        least_ink: see ``LEAST_INK``.
        margin: paper to leave on each side of the digit, as a share of its longer side; the data has none.
    """
    low, high = points.min(), points.max()
    ink = (points - low) / (high - low)
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    if border.mean() > 0.5:
        ink = 1 - ink
    rows, columns = np.nonzero(ink > least_ink)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    side = int(max(bottom - top, right - left) * (1 + 2 * margin))
    # So much paper around that the square cannot stick out.
    padded = Image.fromarray(np.pad(ink * 255, side).astype(np.uint8))
    x, y = side + (left + right - side) / 2, side + (top + bottom - side) / 2
    small = padded.resize((SIDE, SIDE), Image.Resampling.BOX, box=(x, y, x + side, y + side))
    digit = np.asarray(small, dtype=np.float32)
    return Image.fromarray((digit / digit.max() * 255).round().astype(np.uint8))
