"""The handler of ``shapes_segmenter``: says of each point of a picture which shape it belongs to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps
from torch.nn import functional

from marserve.service.torch import TorchService
from marserve.service.vision import VisionService

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from marserve.service.base import Row

    #: The class of each point, ``uint8 (height, width)``.
    ClassMap = NDArray[np.uint8]

#: The classes in the order of the network's scores, and their colours in an answer that is a picture.
COLOURS = {
    "background": (255, 255, 255),
    "circle": (0, 114, 178),
    "square": (230, 159, 0),
    "triangle": (0, 158, 115),
    "star": (204, 121, 167),
}
#: Side of the square that the network looks at, in points.
SIDE = 128
#: Larger pictures are made smaller first: a map of more points than 768 by 768 could be longer than an answer may be.
LARGEST_SIDE = 768


class ShapesSegmenterService(VisionService, TorchService):
    """Gives the class of each point: as a map, in runs, or as a coloured picture, whichever the request accepts."""

    def read(self, row: Row) -> tuple[NDArray[Any], ...]:
        """Return the picture as the network takes it, ``float32 (3, 128, 128)``, and its own height and width."""
        (wanted,) = self.inputs.all
        image = self.open_image(wanted, self.inputs.value(row, wanted)).convert("RGB")
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        image = ImageOps.exif_transpose(image)
        square = Image.new("RGB", (SIDE, SIDE))
        square.paste(image.resize(in_square(*image.size), Image.Resampling.BILINEAR))
        return np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / 255, np.array([image.height, image.width])

    def inference(self, data: Any) -> Any:
        """Run the model on the pictures, and hand on their sizes."""
        pictures, sizes = data
        return super().inference(pictures), sizes

    def postprocess(self, data: Any) -> list[dict[str, Any] | bytes]:
        """Return the answer to each request."""
        scores, sizes = data
        pairs = zip(scores, sizes.tolist(), strict=True)
        return [self.answer(index, each, *size) for index, (each, size) in enumerate(pairs)]

    def answer(self, index: int, scores: Any, height: int, width: int) -> dict[str, Any] | bytes:
        """Return the answer to one request in the form that it accepts.

        Args:
            scores: of the classes in the network's square, ``(5, 128, 128)``.
        """
        across, down = in_square(width, height)
        # Scores are made larger, not classes: edges stay smooth, and no class appears between two others.
        whole = functional.interpolate(scores[None, :, :down, :across], (height, width), mode="bilinear")
        classes = whole[0].argmax(0).byte().cpu().numpy()
        form = form_of(self.context.get_request_header(index, "Accept") or "")
        if form is as_picture:
            self.context.set_response_content_type(index, "image/png")
        return form(classes)


def in_square(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of a picture once its longer side is the network's."""
    longer = max(width, height)
    return max(1, round(width * SIDE / longer)), max(1, round(height * SIDE / longer))


def as_map(classes: ClassMap) -> dict[str, Any]:
    """Return the names of the classes, and for each point the place of its own among them."""
    return {"classes": list(COLOURS), "map": classes.tolist()}


def as_runs(classes: ClassMap) -> dict[str, Any]:
    """Return the same in fewer numbers: for each row its runs from left to right, class and length in turn."""
    runs = []
    for row in classes:
        starts = np.flatnonzero(np.diff(row, prepend=row[0] + 1))
        runs.append(np.stack([row[starts], np.diff(starts, append=len(row))], axis=1).ravel().tolist())
    return {"classes": list(COLOURS), "runs": runs}


def as_picture(classes: ClassMap) -> bytes:
    """Return a PNG of the map's size, each point in the colour of its class."""
    image = Image.fromarray(classes)
    image.putpalette([value for colour in COLOURS.values() for value in colour])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


#: What a request may accept, and what it gets.
FORMS: dict[str, Callable[[ClassMap], dict[str, Any] | bytes]] = {
    "application/json": as_map,
    "application/json;form=runs": as_runs,
    "image/png": as_picture,
    "image/*": as_picture,
}


def form_of(accepted: str) -> Callable[[ClassMap], dict[str, Any] | bytes]:
    """Return the first form that a header ``Accept`` names, the map when it names none."""
    named = (each.partition(";q=")[0] for each in accepted.lower().replace(" ", "").split(","))
    return next((FORMS[each] for each in named if each in FORMS), as_map)
