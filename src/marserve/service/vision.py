"""``VisionService``: images as PNG, JPEG, base64 text or nested lists, for a service whose model takes arrays."""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from marserve.errors import InvalidData
from marserve.service.arrays import ArrayService
from marserve.service.base import Row
from marserve.service.inputs import Input

if TYPE_CHECKING:
    import numpy

#: Pillow's modes by number of channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class VisionService(ArrayService):
    """Reads every input of shape ``(batch, channels, height, width)`` as an image; other inputs as numbers.

    Stands before the service that runs the model: ``class Digits(VisionService, OnnxService)``. An image that
    cannot be read costs its own request alone.

    Attributes:
        mean, deviation: per channel, for pixels of 0..1; None leaves the pixels as they are.
    """

    mean: Optional[Sequence[float]] = None
    deviation: Optional[Sequence[float]] = None

    def read(self, row: Row) -> Tuple[numpy.ndarray, ...]:
        """Return one array an input; an image as float32 (channels, height, width).

        Nested lists are taken as they are, ``(channels, height, width)`` or, with one channel,
        ``(height, width)``. Everything else is decoded, resized to the signature's height and width (unless they
        are free), scaled to 0..1 and normalised.

        Raises:
            InvalidData: the input is missing or no image.
        """
        if self.inputs is None:
            return super().read(row)
        return tuple(
            [
                self.read_image(each, self.inputs.value(row, each))
                if _is_image(each)
                else each.array(self.inputs.value(row, each))
                for each in self.inputs.all
            ]
        )

    def read_image(self, wanted: Input, value: object) -> numpy.ndarray:
        """Return one image as ``read`` describes it."""
        if isinstance(value, str):
            value = _from_base64(wanted, value)
        if isinstance(value, (bytes, bytearray)):
            return self.normalise(self.decode_image(wanted, bytes(value)))
        if wanted.item_shape[0] == 1 and _depth(value) == 2:
            value = [value]
        return wanted.array(value)

    def decode_image(self, wanted: Input, data: bytes) -> numpy.ndarray:
        """Return a PNG or JPEG (or whatever Pillow reads) as float32 (channels, height, width), values 0..1.

        Raises:
            InvalidData: it is damaged, no image, or larger than Pillow's limit of pixels.
        """
        import numpy as np
        from PIL import Image

        channels, height, width = wanted.item_shape
        limited = self.context is None or self.context.system_properties["limit_max_image_pixels"]
        try:
            with Image.open(io.BytesIO(data)) as image:
                if limited and image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
                    raise InvalidData(
                        f"input {wanted.name!r}: the image has {image.width}x{image.height} pixels, "
                        f"{Image.MAX_IMAGE_PIXELS} is the most."
                    )
                converted = image.convert(_MODES.get(channels, "RGB"))
                if height and width and converted.size != (width, height):
                    converted = converted.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(converted, dtype=np.float32) / 255.0
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InvalidData(
                f"input {wanted.name!r}: expected an image, got {len(data)} bytes that cannot be read: {error}."
            ) from error
        return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def normalise(self, pixels: numpy.ndarray) -> numpy.ndarray:
        """Return ``(pixels - mean) / deviation`` per channel."""
        import numpy as np

        if self.mean is not None:
            pixels = pixels - np.asarray(self.mean, dtype=np.float32)[:, None, None]
        if self.deviation is not None:
            pixels = pixels / np.asarray(self.deviation, dtype=np.float32)[:, None, None]
        return pixels


def _is_image(wanted: Input) -> bool:
    return len(wanted.item_shape) == 3 and (wanted.is_image or wanted.item_shape[0] in _MODES)


def _from_base64(wanted: Input, text: str) -> bytes:
    """Return the bytes of base64 text, with or without a ``data:`` prefix."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidData(
            f"input {wanted.name!r}: expected an image, got text that is no base64: {error}."
        ) from error


def _depth(value: object) -> int:
    depth = 0
    while isinstance(value, (list, tuple)):
        depth += 1
        value = value[0] if value else None
    return depth
