"""Draws the card's picture from the built archive: an image, its answer, and the points that the answer came from."""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import marserve

sys.path.insert(0, str(Path(__file__).parent))
from export import drawn

ROOT = Path(__file__).parents[2]
SIDE, GAP = 224, 16
#: What speaks for the digit, and what against it.
FOR, AGAINST = (214, 48, 49), (52, 96, 214)


def as_heat(explanation: object, backdrop: Image.Image) -> Image.Image:
    """Return an explanation, ``(3, 224, 224)``, as colours over a pale image: red for the digit, blue against it."""
    spoken = np.asarray(explanation, dtype=np.float32).sum(0)
    # A quarter of a percent of the points may be brighter than bright: a single one would leave the others pale.
    strength = np.clip(np.abs(spoken) / np.quantile(np.abs(spoken), 0.9975), 0, 1)[:, :, None]
    colour = np.where((spoken > 0)[:, :, None], FOR, AGAINST)
    pale = 200 + np.asarray(backdrop.convert("RGB"), dtype=np.float32) * 55 / 255
    return Image.fromarray((strength * colour + (1 - strength) * pale).astype(np.uint8))


def as_bars(answer: dict[str, float]) -> Image.Image:
    """Return an answer as one bar a label."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    for row, (label, probability) in enumerate(answer.items()):
        y = 12 + row * 42
        pen.text((0, y), f"{label}  {probability:.4f}", fill="black", font=font)
        pen.rectangle((0, y + 20, max(1, round(probability * (SIDE - 1))), y + 28), fill=FOR)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, default=ROOT / "model-store" / "digits_torchserve.mar")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("card.png"))
    arguments = parser.parse_args()
    example = json.loads((ROOT / "signature" / "digits.json").read_text())["inputs"][0]["example"]
    image = drawn(torch.tensor(example)[None] / 16, 256, random.Random(4))
    file = io.BytesIO()
    image.save(file, "PNG")
    with marserve.load(arguments.archive) as archive:
        answer = archive.predict(file.getvalue(), content_type="image/png")
        # Without the field target the handler explains class 0, whatever it has read.
        form = (
            b'--b\r\ncontent-disposition: form-data; name="target"\r\n\r\n3\r\n--b\r\ncontent-disposition: form-data;'
        )
        form += b' name="data"\r\ncontent-type: image/png\r\n\r\n' + file.getvalue() + b"\r\n--b--\r\n"
        explanation = archive.explain(form, content_type="multipart/form-data; boundary=b")
    seen = image.crop((16, 16, 240, 240))  # as the handler cuts it
    card = Image.new("RGB", (3 * SIDE + 4 * GAP, SIDE + 2 * GAP), "white")
    for place, part in enumerate((seen, as_bars(answer), as_heat(explanation, seen))):
        card.paste(part, (GAP + place * (SIDE + GAP), GAP))
    card.quantize(96).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
