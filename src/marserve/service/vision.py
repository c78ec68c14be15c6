"""``VisionService``: images as PNG, JPEG, base64 text or nested lists, for a service whose model takes arrays."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from marserve.errors import InvalidData, SignatureError
from marserve.service.arrays import ArrayService
from marserve.service.base import Row
from marserve.service.context import Context
from marserve.service.inputs import Input

if TYPE_CHECKING:
    import numpy
    import PIL.Image

#: Pillow's modes by number of channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def with_eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return an image of 16 bits a pixel with all its shades in 8; Pillow's ``convert`` would cut them off at 255."""
    import numpy as np
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))


class VisionService(ArrayService):
    """Reads each input whose content type is ``image/…`` as an image; other inputs as numbers.

    Stands before the service that runs the model: ``class Digits(VisionService, OnnxService)``. The shape in the
    signature is (height, width), (channels, height, width) or (height, width, channels). An image that cannot be
    read costs its own request alone.

    Attributes:
        mean, deviation: per channel, taken from and divided into an image's values; None leaves them as they are.
    """

    mean: Optional[Sequence[float]] = None
    deviation: Optional[Sequence[float]] = None

    def initialize(self, context: Context) -> None:
        """Load the model and look at the signature's images.

        Raises:
            SignatureError: an input is sent as an image, and its shape is not one's.
        """
        super().initialize(context)
        for each in self.inputs.all if self.inputs is not None else ():
            if each.content_type.startswith("image/"):
                _channels(each)
        if not context.system_properties["limit_max_image_pixels"]:
            from PIL import Image

            Image.MAX_IMAGE_PIXELS = None

    def read(self, row: Row) -> Tuple[numpy.ndarray, ...]:
        """Return one array an input; see ``read_image``.

        Raises:
            InvalidData: an input is missing or does not fit.
        """
        if self.inputs is None:
            return super().read(row)
        inputs = self.inputs
        return tuple(
            [
                self.read_image(each, inputs.value(row, each))
                if each.content_type.startswith("image/")
                else each.array(inputs.value(row, each))
                for each in inputs.all
            ]
        )

    def read_image(self, wanted: Input, value: object) -> numpy.ndarray:
        """Return one image, in the shape of the signature.

        Bytes, base64 text and ``{"b64": text}`` are decoded; nested lists are the values themselves.

        Raises:
            InvalidData: the value is no image.
        """
        data = _encoded(wanted, value)
        return wanted.array(value) if data is None else self.normalise(wanted, self.decode_image(wanted, data))

    def open_image(self, wanted: Input, value: object) -> PIL.Image.Image:
        """Return an uploaded image decoded in full, in its own size and mode: for answers about its own points.

        Takes what ``read_image`` takes; the values of nested lists are 0 to 255, channels last.

        Raises:
            InvalidData: the value is no image, damaged, or larger than Pillow's limit of pixels.
        """
        from PIL import Image

        data = _encoded(wanted, value)
        return Image.fromarray(wanted.array(value).astype("uint8")) if data is None else _opened(wanted, data)

    def decode_image(self, wanted: Input, data: bytes) -> numpy.ndarray:
        """Return an encoded image, resized to the signature's height and width where these are not free.

        Values run from the signature's minimum to its maximum, 0 to 1 when it names none.

        Args:
            data: PNG, JPEG or whatever else Pillow reads.

        Raises:
            InvalidData: it is damaged, no image, or larger than Pillow's limit of pixels.
        """
        import numpy as np
        from PIL import Image

        channels, axis = _channels(wanted)
        height, width = [size for index, size in enumerate(wanted.shape) if index != axis]
        image = with_eight_bits(self.prepare_image(wanted, _opened(wanted, data))).convert(_MODES[channels])
        if height and width and image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1)
        low = wanted.minimum or 0.0
        high = 1.0 if wanted.maximum is None else wanted.maximum
        scaled = pixels / np.float32(255) * np.float32(high - low) + np.float32(low)
        if axis is None:
            return scaled[:, :, 0]
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)) if axis == 0 else scaled

    def prepare_image(self, wanted: Input, image: PIL.Image.Image) -> PIL.Image.Image:
        """Return the image to convert and resize: as it is, unless a service turns, cuts or cleans it.

        Args:
            wanted: the input; ``wanted.refuse(what)`` refuses an image that the model cannot read.
            image: decoded in full, in the mode and size of the file.
        """
        return image

    def normalise(self, wanted: Input, pixels: numpy.ndarray) -> numpy.ndarray:
        """Return ``(pixels - mean) / deviation``, per channel."""
        import numpy as np

        _, axis = _channels(wanted)
        shape = (-1, 1, 1) if axis == 0 else (-1,)
        if self.mean is not None:
            pixels = pixels - np.asarray(self.mean, dtype=np.float32).reshape(shape)
        if self.deviation is not None:
            pixels = pixels / np.asarray(self.deviation, dtype=np.float32).reshape(shape)
        return pixels


def _encoded(wanted: Input, value: object) -> Optional[bytes]:
    """Return an image that came as bytes, base64 text or ``{"b64": text}``; None if it did not."""
    return wanted.from_base64(value) if isinstance(value, str) else wanted.raw(value)


def _opened(wanted: Input, data: bytes) -> PIL.Image.Image:
    """Return an encoded image, decoded.

    Raises:
        InvalidData: it is damaged, no image, or larger than Pillow's limit of pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
        most = Image.MAX_IMAGE_PIXELS
        if most and image.width * image.height > most:
            wanted.refuse(f"an image of {image.width} x {image.height} pixels; {most} pixels are the most")
        image.load()  # here, so that what a service does with it later is not taken for damage
    except InvalidData:
        raise
    except Image.DecompressionBombError as error:
        wanted.refuse(f"an image that is too large ({error})")
    except UnidentifiedImageError:  # its message shows the address of an object
        wanted.refuse(f"{len(data)} bytes that are no image")
    except Exception as error:  # each of Pillow's formats raises its own kinds for damaged data
        wanted.refuse(f"a damaged image of {len(data)} bytes ({str(error) or type(error).__name__})")
    return image


def _channels(wanted: Input) -> Tuple[int, Optional[int]]:
    """Return the number of an image's channels and the axis that they are on, None without one."""
    shape = wanted.shape
    if len(shape) == 2:
        return 1, None
    if len(shape) == 3 and shape[0] in _MODES:
        return shape[0], 0
    if len(shape) == 3 and shape[2] in _MODES:
        return shape[2], 2
    raise SignatureError(
        f"input {wanted.name!r} is sent as an image, but its shape in signature.json is {shape}: "
        "neither (height, width) nor with 1, 3 or 4 channels before or behind."
    )
