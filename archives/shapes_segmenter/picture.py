"""Draws the card's picture from the built archive: scenes that no training saw, and below each its answer."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import marserve

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "handlers"))
from shapes_scenes import UNSEEN, draw_scene
from shapes_segmenter_service import COLOURS

ROOT = Path(__file__).parents[2]
SCENES, SIDE, GAP, LINE = 4, 160, 12, 24


def answered(archive: marserve.LoadedArchive, picture: Image.Image) -> Image.Image:
    """Return the picture that the archive answers with."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    answer = archive.predict(file.getvalue(), content_type="image/png", headers={"Accept": "image/png"})
    return Image.open(io.BytesIO(answer)).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, default=ROOT / "model-store" / "shapes_segmenter.mar")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("card.png"))
    arguments = parser.parse_args()
    width = SCENES * (SIDE + GAP) + GAP
    card = Image.new("RGB", (width, 2 * (SIDE + GAP) + GAP + LINE), (236, 236, 236))
    with marserve.load(arguments.archive) as archive:
        for place in range(SCENES):
            picture = draw_scene(UNSEEN + place, (SIDE, SIDE)).image
            x = GAP + place * (SIDE + GAP)
            card.paste(picture, (x, GAP))
            card.paste(answered(archive, picture), (x, 2 * GAP + SIDE))
    pen, font = ImageDraw.Draw(card), ImageFont.load_default(14)
    step = (width - GAP) // len(COLOURS)
    for place, (name, colour) in enumerate(COLOURS.items()):
        x, y = GAP + place * step, 3 * GAP + 2 * SIDE
        pen.rectangle((x, y, x + 14, y + 14), fill=colour, outline="grey")
        pen.text((x + 20, y - 1), name, fill="black", font=font)
    card.quantize(64).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
