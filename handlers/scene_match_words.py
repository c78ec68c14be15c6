"""The words of ``scene_match`` and the pictures it sees: what its handler and the script that trains it share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: All that the network reads, numbered from 1; 0 stands before the beginning of a sentence.
WORDS = (
    *("a", "above", "and", "are", "below", "blue", "circle", "circles", "green", "is", "left", "no", "of", "purple"),
    *("red", "right", "shape", "shapes", "square", "squares", "star", "stars", "the", "there", "three", "to"),
    *("triangle", "triangles", "two", "yellow"),
)
#: Words of a sentence at most.
MOST_WORDS = 12
#: Width and height of the pictures that the network sees.
SIDE = 64

_NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}
_WORD = re.compile(r"\w+")


def words_in(text: str) -> list[str]:
    """Return the words of a text in small letters, known ones or not."""
    return _WORD.findall(text.lower())


def unknown_in(words: list[str]) -> list[str]:
    """Return those of some words that the network does not know, each once."""
    return [word for word in dict.fromkeys(words) if word not in _NUMBERS]


def numbers_of(words: list[str]) -> NDArray[np.int64]:
    """Return known words as the network reads them: ``int64 (12,)``, 0 before the first."""
    numbers = np.zeros(MOST_WORDS, dtype=np.int64)
    if words:
        numbers[-len(words) :] = [_NUMBERS[word] for word in words]
    return numbers


def points_of(image: Image.Image) -> NDArray[np.float32]:
    """Return a picture of any size as the network sees it: upright, ``float32 (3, 64, 64)``, values 0..1."""
    image = ImageOps.exif_transpose(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255
