"""Draws ``card.png``: a sentence, and the shares that the built archive gives the topics."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import marserve

ROOT = Path(__file__).parents[2]
SENTENCE = "Read the answer of the server line by line until the connection is closed, then write it to a file."
WIDTH, MARGIN, ROW = 720, 24, 34
#: Where the bars begin, and how long one of the share 1 is.
BAR_LEFT, BAR_LENGTH = 200, 400
INK, PALE, BAR = "#1f2933", "#e4e7eb", "#2f6fb3"


def draw(sentence: str, scores: dict[str, float]) -> Image.Image:
    """Return a picture of a sentence and of one bar a topic, in the order of the scores."""
    large, small = ImageFont.load_default(20), ImageFont.load_default(17)
    lines = textwrap.wrap(sentence, 66)
    top = MARGIN + 28 * len(lines) + 16
    image = Image.new("RGB", (WIDTH, top + ROW * len(scores) + MARGIN), "white")
    pen = ImageDraw.Draw(image)
    pen.multiline_text((MARGIN, MARGIN), "\n".join(lines), fill=INK, font=large, spacing=8)
    for place, (topic, share) in enumerate(scores.items()):
        y = top + ROW * place
        pen.text((MARGIN, y + 4), topic, fill=INK, font=small)
        pen.rectangle((BAR_LEFT, y + 6, BAR_LEFT + BAR_LENGTH, y + 24), fill=PALE)
        pen.rectangle((BAR_LEFT, y + 6, BAR_LEFT + round(BAR_LENGTH * share), y + 24), fill=BAR)
        pen.text((BAR_LEFT + BAR_LENGTH + 14, y + 4), f"{share:.1%}", fill=INK, font=small)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, default=ROOT / "model-store" / "docstring_topics.mar")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("card.png"))
    arguments = parser.parse_args()
    with marserve.load(arguments.archive) as archive:
        scores = archive.predict({"text": SENTENCE})["scores"]
    draw(SENTENCE, scores).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
