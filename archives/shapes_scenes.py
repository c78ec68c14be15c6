"""Scenes of coloured shapes on a restless background: what the picture archives are trained on, drawn as wanted.

Each comes from its seed alone, so that training, held-out pictures and tests can name theirs. Seeds below
``UNSEEN`` are for training; what is measured and tested is drawn from ``UNSEEN`` on.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

#: The classes of the class map are 0 for the background, then these in order from 1 on.
SHAPES = ("circle", "square", "triangle", "star")
#: Red, green, blue; each varies a little from shape to shape.
COLOURS = {
    "red": (214, 48, 49),
    "green": (46, 168, 84),
    "blue": (52, 96, 214),
    "yellow": (240, 200, 40),
    "purple": (142, 68, 190),
}
#: The first seed of scenes that no training sees.
UNSEEN = 1_000_000
#: Points that a point of the picture is drawn with, each way, so that edges are smooth.
FINE = 4
#: Most of a shape's box that another one's may share, by intersection over union.
MOST_OVERLAP = 0.05

Point = tuple[float, float]


@dataclass(frozen=True)
class Thing:
    """One shape of a scene.

    Attributes:
        box: left, top, right, bottom in points of the picture; right and bottom lie outside.
    """

    shape: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """A picture and what is to be found in it.

    Attributes:
        image: RGB.
        classes: ``uint8 (height, width)``, 0 for the background, else 1 + the place of the shape in ``SHAPES``.
    """

    image: Image.Image
    things: tuple[Thing, ...]
    classes: np.ndarray


def draw_scene(seed: int, size: tuple[int, int] = (128, 128), most: int = 4) -> Scene:
    """Return the scene of a seed.

    Args:
        size: width and height of the picture.
        most: shapes that are in it at most; at least one is.
    """
    chance = random.Random(seed)
    image = _background(chance, size).resize((size[0] * FINE, size[1] * FINE), Image.Resampling.BILINEAR)
    classes = Image.new("L", size)
    things: list[Thing] = []
    for _ in range(chance.randint(1, most)):
        outline = _placed(chance, size, things)
        if outline is None:
            continue
        shape, corners = outline
        colour = chance.choice(list(COLOURS))
        fill = tuple(max(0, min(255, value + chance.randint(-18, 18))) for value in COLOURS[colour])
        ImageDraw.Draw(image).polygon([(x * FINE, y * FINE) for x, y in corners], fill=fill)
        # A point belongs to a shape where its middle does.
        ImageDraw.Draw(classes).polygon([(x - 0.5, y - 0.5) for x, y in corners], fill=1 + SHAPES.index(shape))
        things.append(Thing(shape, colour, _box(corners)))
    image = image.resize(size, Image.Resampling.BOX)
    return Scene(_noisy(chance, image), tuple(things), np.asarray(classes))


def _placed(chance: random.Random, size: tuple[int, int], things: list[Thing]) -> tuple[str, list[Point]] | None:
    """Return a shape and its corners at a place that is free enough; None when there is hardly any left."""
    for _ in range(20):
        shape = chance.choice(SHAPES)
        radius = chance.uniform(0.11, 0.24) * min(size)
        x = chance.uniform(radius + 1, size[0] - radius - 1)
        y = chance.uniform(radius + 1, size[1] - radius - 1)
        corners = [
            (x + radius * share * math.cos(angle), y + radius * share * math.sin(angle))
            for angle, share in _corners(shape, chance.uniform(-0.35, 0.35))
        ]
        if all(overlap(_box(corners), thing.box) <= MOST_OVERLAP for thing in things):
            return shape, corners
    return None


def _corners(shape: str, turn: float) -> list[tuple[float, float]]:
    """Return the corners of a shape: angle, and distance from the middle as a share of the radius."""
    if shape == "circle":
        return [(math.tau * step / 48, 1.0) for step in range(48)]
    if shape == "square":
        return [(turn + math.tau * (step + 0.5) / 4, 1.0) for step in range(4)]
    if shape == "triangle":
        return [(turn + math.tau * (step / 3 - 0.25), 1.0) for step in range(3)]
    return [(turn + math.tau * (step / 10 - 0.25), 0.42 if step % 2 else 1.0) for step in range(10)]


def _box(corners: list[Point]) -> tuple[float, float, float, float]:
    across, down = [x for x, _ in corners], [y for _, y in corners]
    return min(across), min(down), max(across), max(down)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes, 0..1; each is left, top, right, bottom."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def _background(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    """Return a soft gradient between pale colours, crossed by a few thin lines that are no shapes."""
    corners = np.array([[[chance.randint(120, 235) for _ in range(3)] for _ in range(2)] for _ in range(2)], np.uint8)
    image = Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(image)
    for _ in range(chance.randint(0, 4)):
        ends = [(chance.uniform(0, size[0]), chance.uniform(0, size[1])) for _ in range(2)]
        pen.line(ends, fill=tuple(chance.randint(60, 200) for _ in range(3)), width=1)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _noisy(chance: random.Random, image: Image.Image) -> Image.Image:
    """Return the picture with the noise of a sensor."""
    clean = np.asarray(image)
    noise = np.random.default_rng(chance.getrandbits(32)).normal(0.0, chance.uniform(1.0, 7.0), clean.shape)
    return Image.fromarray(np.clip(clean + noise, 0, 255).astype(np.uint8))
