"""``VisionHandler``: images as bytes, base64 text or nested lists of numbers."""

from __future__ import annotations

import abc
import base64
import io
from typing import TYPE_CHECKING, Any, List, Union

import torch

from marserve.errors import InvalidData

from ..handler_utils.timer import timed
from .attribution import IntegratedGradients
from .base_handler import BaseHandler

if TYPE_CHECKING:
    import PIL.Image


class VisionHandler(BaseHandler, abc.ABC):
    """A handler of images; a subclass has ``image_processing``, from an image of Pillow to a tensor."""

    image_processing: Any

    def initialize(self, context: Any) -> None:
        """Load the model; images of any size are let pass where the server's limit is off."""
        super().initialize(context)
        self.ig = IntegratedGradients(self.model)
        if not context.system_properties.get("limit_max_image_pixels"):
            from PIL import Image

            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: List[Any]) -> torch.Tensor:
        """Return the images of a batch as one tensor; lists of numbers are taken for tensors as they are.

        Raises:
            InvalidData: a request holds no image, or the shapes differ; each is then handled alone, so that none
                costs the others.
        """
        images = [self._image(row) for row in data]
        if any(image.shape != images[0].shape for image in images):
            raise InvalidData("expected images of one shape in a batch, got several.")
        return torch.stack(images).to(self.device)

    def _image(self, row: Any) -> torch.Tensor:
        image = (row.get("data") or row.get("body")) if isinstance(row, dict) else row
        try:
            if isinstance(image, str):
                image = base64.b64decode(image)
            if not isinstance(image, (bytes, bytearray)):
                return torch.tensor(image, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidData(f"expected an image or numbers: {error}.") from error
        with _decoded(image) as opened:
            processed: torch.Tensor = self.image_processing(opened)
        return processed

    def get_insights(self, tensor_data: torch.Tensor, raw_data: Any, target: int = 0) -> Any:
        """Return how much each value of the preprocessed images speaks for the class ``target``, in their shape."""
        return self.ig.attribute(tensor_data, target=target, n_steps=15).tolist()


def _decoded(data: Union[bytes, bytearray]) -> PIL.Image.Image:
    """Return an image of Pillow, decoded.

    Raises:
        InvalidData: it is damaged, no image, or larger than Pillow lets pass.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
        image.load()  # here, so that what becomes of it later is not taken for damage
    except UnidentifiedImageError as error:  # its message shows the address of an object
        raise InvalidData(f"expected an image, got {len(data)} bytes that are none.") from error
    except Exception as error:  # each of Pillow's formats raises its own kinds for damaged data
        raise InvalidData(f"expected an image, got a damaged one of {len(data)} bytes: {error}.") from error
    return image
