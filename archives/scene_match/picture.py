"""Draws ``card.png``: scenes that the network has not seen, and its answers to sentences about them."""

from __future__ import annotations

import argparse
import base64
import io
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "handlers"))

from PIL import Image, ImageDraw, ImageFont
from sentences import draw_sentence, seen_in
from shapes_scenes import UNSEEN, Scene, draw_scene

import marserve

ROOT = Path(__file__).parents[2]
#: Scenes of the picture, and sentences to each: every other one is true.
SEEDS = (UNSEEN + 3, UNSEEN + 13)
SENTENCES = 6
SIDE, LINE, WIDTH = 256, 40, 760
RIGHT, WRONG = (30, 130, 60), (190, 40, 40)


def asked(scene: Scene, chance: random.Random) -> list[tuple[str, bool]]:
    """Return sentences about a scene, each another one, and whether each describes it."""
    found: dict[str, bool] = {}
    while len(found) < SENTENCES:
        is_true = len(found) % 2 == 0
        found.setdefault(draw_sentence(chance, seen_in(scene), is_true).spoken(chance), is_true)
    return list(found.items())


def data_uri(image: Image.Image) -> str:
    """Return a picture as the address that holds it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def draw(archive: marserve.LoadedArchive) -> Image.Image:
    """Return the card's picture."""
    card = Image.new("RGB", (WIDTH, (SIDE + 12) * len(SEEDS)), "white")
    pen, font = ImageDraw.Draw(card), ImageFont.load_default(16)
    chance = random.Random(0)
    for row, seed in enumerate(SEEDS):
        scene = draw_scene(seed)
        top = (SIDE + 12) * row
        card.paste(scene.image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (0, top))
        for place, (text, is_true) in enumerate(asked(scene, chance)):
            answer, score = next(iter(archive.predict({"text": text, "img_uri": data_uri(scene.image)}).items()))
            colour = RIGHT if (answer == "match") is is_true else WRONG
            at = top + 8 + place * LINE
            pen.text((SIDE + 16, at), text, fill="black", font=font)
            pen.text((WIDTH - 120, at), f"{answer} {score:.2f}", fill=colour, font=font)
    return card.quantize(128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, default=ROOT / "model-store" / "scene_match.mar")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("card.png"))
    arguments = parser.parse_args()
    with marserve.load(arguments.archive) as archive:
        draw(archive).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
