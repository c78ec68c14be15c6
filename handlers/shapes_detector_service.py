"""The handler of ``shapes_detector``: finds shapes in a picture of any size, by a network in Darknet's files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detection import candidates, chosen, letterbox, reduction
from network import DarknetNetwork
from PIL import Image, ImageDraw, ImageOps

from marserve.service.arrays import weights_file
from marserve.service.torch import TorchService
from marserve.service.vision import VisionService

if TYPE_CHECKING:
    from marserve.service.base import Row
    from marserve.service.context import Context

#: What ``handler`` in model-config.yaml may set, each 0..1: the least score of what is answered, and how much two
#: boxes of one class may overlap (intersection over union).
SETTINGS = {"threshold": 0.5, "most_overlap": 0.45}
#: Larger pictures are drawn smaller: as PNG they could be longer than an answer may be.
LARGEST_SIDE = 1280
PICTURE = "image/png"
#: Content types that a client may ask for, and whether each means the picture.
KINDS = {PICTURE: True, "image/*": True, "application/json": False, "application/*": False, "*/*": False}


class ShapesDetectorService(VisionService, TorchService):
    """Answers ``{"boxes": [{"label": "star", "score": 0.98, "box": [left, top, right, bottom]}, …]}``.

    The highest score comes first. Boxes are in points of the uploaded picture as one looks at it: upright, where
    its EXIF note says that it lies. Who asks for ``image/png`` gets that picture with the boxes drawn, at most
    ``LARGEST_SIDE`` points a side.

    The archive holds the network as ``NAME.cfg``, ``NAME.weights`` and ``NAME.names``, one label a line.
    """

    def load(self, context: Context) -> None:
        """Load the network, its labels and the settings of model-config.yaml."""
        self.settings = settings_of(context.model_yaml_config)
        self.device = torch.device(context.device)
        if not context.will_fork:
            self.after_fork(context)  # which sets torch's threads
        weights = Path(weights_file(context, (".weights",)))
        self.model = DarknetNetwork(weights.with_suffix(".cfg"))
        self.model.load_weights(weights)
        self.model.to(self.device).eval()
        self.labels = weights.with_suffix(".names").read_text(encoding="utf-8").splitlines()
        if any(head.classes != len(self.labels) for head in self.model.heads):
            raise ValueError(f"{weights.stem}.names has {len(self.labels)} labels, and not one for each class.")

    def read(self, row: Row) -> tuple[np.ndarray, ...]:
        """Return the input of the network, ``float32 (3, height, width)``, and the picture's own width and height."""
        image = self.picture(row)
        return letterbox(image, self.model.size), np.array(image.size)

    def picture(self, row: Row) -> Image.Image:
        """Return what was uploaded as one looks at it.

        Raises:
            InvalidData: it is no image, damaged, or too large.
        """
        (wanted,) = self.inputs.all
        return upright(self.open_image(wanted, self.inputs.value(row, wanted)))

    def inference(self, data: Any) -> Any:
        """Return the candidates of each picture, and the pictures' sizes."""
        pictures, sizes = data
        return candidates(self.run((pictures,)), self.model.heads, self.model.size).cpu(), sizes.tolist()

    def postprocess(self, data: Any) -> list[dict[str, Any]]:
        """Return what each picture holds."""
        return [{"boxes": self.boxes(found, size)} for found, size in zip(*data, strict=True)]

    def boxes(self, found: torch.Tensor, size: list[int]) -> list[dict[str, Any]]:
        """Return the chosen ones of a picture's candidates, in its own points and cut off at its border."""
        boxes, classes, scores = chosen(found, **self.settings)
        within = torch.tensor([*size, *size])
        boxes = (boxes * reduction(size, self.model.size)).clamp(min=0).minimum(within)
        answer = []
        for box, number, score in zip(boxes.tolist(), classes.tolist(), scores.tolist(), strict=True):
            left, top, right, bottom = (round(edge, 1) for edge in box)
            if left < right and top < bottom:  # else it lies in the grey beside the picture
                box = [left, top, right, bottom]
                answer.append({"label": self.labels[number], "score": round(score, 4), "box": box})
        return answer

    def handle(self, data: list[Row], context: Context) -> list[Any]:
        """Answer a batch; who asks for the picture gets it."""
        answers = super().handle(data, context)
        for index, row in enumerate(data):
            if wants_picture(context.get_request_header(index, "accept") or ""):
                answers[index] = drawn(self.picture(row), answers[index]["boxes"])
                context.set_response_content_type(index, PICTURE)
        return answers


def settings_of(config: dict[str, Any]) -> dict[str, float]:
    """Return the settings, those of ``handler`` in model-config.yaml instead of ours.

    Raises:
        ValueError: there is one that nobody knows, or that is no number from 0 to 1.
    """
    given = dict(config.get("handler") or {})
    for name, value in given.items():
        if name not in SETTINGS or type(value) not in (int, float) or not 0 <= value <= 1:
            known = " and ".join(SETTINGS)
            raise ValueError(f"handler in model-config.yaml: expected {known}, from 0 to 1, got {name}: {value!r}.")
    return SETTINGS | given


def upright(image: Image.Image) -> Image.Image:
    """Return a picture in RGB, turned as its EXIF note says, and on white where it is transparent."""
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds for a damaged note; other programs show such a picture unturned
        pass
    if image.mode.startswith("I"):  # 16 bits a point, of which Pillow would keep the lower eight
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def wants_picture(accept: str) -> bool:
    """Tell whether the first content type of an ``Accept`` header that can be given is the picture."""
    kinds = [kind.partition(";")[0].strip() for kind in accept.lower().split(",")]
    return next((KINDS[kind] for kind in kinds if kind in KINDS), False)


def drawn(image: Image.Image, boxes: list[dict[str, Any]]) -> bytes:
    """Return a picture with boxes and labels as PNG; the likeliest is drawn last, over the others."""
    share = min(1.0, LARGEST_SIDE / max(image.size))
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    pen, font_size = ImageDraw.Draw(image), max(11, max(image.size) // 40)
    for each in reversed(boxes):
        left, top, right, bottom = (edge * share for edge in each["box"])
        pen.rectangle((left, top, right, bottom), outline="black", width=max(2, font_size // 8))
        text = f"{each['label']} {each['score']:.2f}"
        wide, high = pen.textbbox((0, 0), text, font_size=font_size)[2:]
        x, y = max(0, min(left, image.width - wide)), max(0, top - high)
        pen.rectangle((x, y, x + wide, y + high), fill="black")
        pen.text((x, y), text, fill="white", font_size=font_size)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
