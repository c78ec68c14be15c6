"""Draws ``card.png``: scenes that no training has seen, and below each what the built archive finds in it."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

import marserve

sys.path.insert(0, str(Path(__file__).parents[1]))
from shapes_scenes import UNSEEN, draw_scene

ROOT = Path(__file__).parents[2]
SCENES, SIZE, GAP = 3, (200, 150), 10
#: Enough to tell the colours apart, and few enough for a small file: the noise takes most of it.
SHADES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, default=ROOT / "model-store" / "shapes_detector.mar")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("card.png"))
    arguments = parser.parse_args()
    card = Image.new("RGB", (SCENES * (SIZE[0] + GAP) + GAP, 2 * (SIZE[1] + GAP) + GAP), "white")
    with marserve.load(arguments.archive) as archive:
        for place in range(SCENES):
            file = io.BytesIO()
            draw_scene(UNSEEN + place, SIZE).image.save(file, "PNG")
            answer = archive.predict(file.getvalue(), content_type="image/png", headers={"Accept": "image/png"})
            for row, content in enumerate((file.getvalue(), answer)):
                corner = GAP + place * (SIZE[0] + GAP), GAP + row * (SIZE[1] + GAP)
                card.paste(Image.open(io.BytesIO(content)), corner)
    card.quantize(SHADES, Image.Quantize.MAXCOVERAGE).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
