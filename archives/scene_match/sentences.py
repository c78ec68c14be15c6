"""The sentences of ``scene_match``: what they mean, and how they are drawn for a scene, true of it or not."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from shapes_scenes import COLOURS, SHAPES, Scene

#: How many things a phrase asks for, by its first word.
COUNTS: dict[str, Callable[[int], bool]] = {
    "a": lambda count: count >= 1,
    "no": lambda count: count == 0,
    "two": lambda count: count == 2,
    "three": lambda count: count == 3,
}
PLURAL = ("two", "three")
#: Axis of a relation, and the sign of the way from the second thing to the first.
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
#: Other ways to say so.
SPOKEN = {
    "left of": ("left of", "is left of", "to the left of", "is to the left of"),
    "right of": ("right of", "is right of", "to the right of", "is to the right of"),
    "above": ("above", "is above"),
    "below": ("below", "is below"),
}
#: Two middles that are nearer to each other than this, as a share of the picture's side, are neither left nor right.
LEAST_APART = 0.06


class Seen(NamedTuple):
    """A thing as sentences speak of it; ``middle`` is across and down, as shares of the picture's sides."""

    shape: str
    colour: str
    middle: tuple[float, float]


def seen_in(scene: Scene) -> tuple[Seen, ...]:
    """Return the things of a scene."""
    width, height = scene.image.size
    found = []
    for thing in scene.things:
        left, top, right, bottom = thing.box
        found.append(Seen(thing.shape, thing.colour, ((left + right) / 2 / width, (top + bottom) / 2 / height)))
    return tuple(found)


def mirrored(things: Sequence[Seen]) -> tuple[Seen, ...]:
    """Return the things of the picture with its sides exchanged."""
    return tuple(each._replace(middle=(1 - each.middle[0], each.middle[1])) for each in things)


@dataclass(frozen=True)
class Phrase:
    """So many things of a kind: ``two red circles``; without a shape or a colour, of any."""

    count: str
    colour: str = ""
    shape: str = ""

    def among(self, things: Sequence[Seen]) -> list[Seen]:
        """Return the things of this kind."""
        return [one for one in things if self.colour in ("", one.colour) and self.shape in ("", one.shape)]

    def holds(self, things: Sequence[Seen]) -> bool:
        """Tell whether there are as many as it says: ``a`` means one or more, a number exactly so many."""
        return COUNTS[self.count](len(self.among(things)))

    def kinds(self) -> list[bool]:
        """Return of each shape in each colour whether it may be meant."""
        return [self.colour in ("", colour) and self.shape in ("", shape) for shape in SHAPES for colour in COLOURS]

    def __str__(self) -> str:
        noun = (self.shape or "shape") + "s" * (self.count in PLURAL)
        return " ".join(word for word in (self.count, self.colour, noun) if word)


@dataclass(frozen=True)
class Sentence:
    """A phrase, or two with ``and`` or a relation between."""

    first: Phrase
    link: str = ""
    second: Phrase | None = None

    def holds(self, things: Sequence[Seen]) -> bool | None:
        """Tell whether the sentence describes the things; None where it is too close to call."""
        if self.second is None:
            return self.first.holds(things)
        if self.link == "and":
            return self.first.holds(things) and self.second.holds(things)
        axis, sign = RELATIONS[self.link]
        ways = [
            (one.middle[axis] - other.middle[axis]) * sign
            for one in self.first.among(things)
            for other in self.second.among(things)
            if one is not other
        ]
        farthest = max(ways, default=-1.0)
        return None if abs(farthest) < LEAST_APART else farthest > 0

    def spoken(self, chance: random.Random) -> str:
        """Return the sentence in words, one of the ways to say it."""
        if self.second is None or self.link == "and":
            verb = "are" if self.first.count in PLURAL else "is"
            start = f"there {verb} " if chance.random() < 0.3 else ""
            return f"{start}{self.first}" + (f" and {self.second}" if self.second is not None else "")
        return f"{self.first} {chance.choice(SPOKEN[self.link])} {self.second}"


#: What may be missing: a colour, a shape, or the one in the other.
NOTHINGS = [Phrase("no", colour, shape) for colour in ("", *COLOURS) for shape in ("", *SHAPES) if colour or shape]


def draw_sentence(chance: random.Random, things: Sequence[Seen], is_true: bool) -> Sentence:
    """Return a sentence that describes the things, or one that would but for a colour, shape, number or direction."""
    while True:
        sentence = _about(chance, things)
        if sentence.holds(things):
            found = sentence if is_true else _changed(chance, sentence)
            if found.holds(things) is is_true:
                return found


def _about(chance: random.Random, things: Sequence[Seen]) -> Sentence:
    """Return a sentence about the things, which describes them but for a relation, which may be another."""
    kind = chance.random()
    if kind < 0.25 or len(things) < 2:
        return Sentence(_phrase(chance, things))
    if kind < 0.45:
        return Sentence(_phrase(chance, things), "and", _phrase(chance, things))
    one, other = chance.sample(things, 2)
    first, second = _phrase(chance, [one], counted=False), _phrase(chance, [other], counted=False)
    return Sentence(first, chance.choice(list(RELATIONS)), second)


def _phrase(chance: random.Random, things: Sequence[Seen], counted: bool = True) -> Phrase:
    """Return a phrase that is true of the things."""
    if counted and chance.random() < 0.15:
        missing = chance.choice(NOTHINGS)
        if missing.holds(things):
            return missing
    one = chance.choice(things)
    colour = one.colour if chance.random() < 0.75 else ""
    phrase = Phrase("a", colour, one.shape if not colour or chance.random() < 0.85 else "")
    number = {2: "two", 3: "three"}.get(len(phrase.among(things)))
    return replace(phrase, count=number) if counted and number and chance.random() < 0.6 else phrase


def _changed(chance: random.Random, sentence: Sentence) -> Sentence:
    """Return a sentence with one thing about it changed; it may still be true."""
    if sentence.link in RELATIONS and chance.random() < 0.5:
        return replace(sentence, link=OPPOSITES[sentence.link])
    if sentence.second is not None and chance.random() < 0.5:
        return replace(sentence, second=_changed_phrase(chance, sentence.second, sentence.link not in RELATIONS))
    return replace(sentence, first=_changed_phrase(chance, sentence.first, sentence.link not in RELATIONS))


def _changed_phrase(chance: random.Random, phrase: Phrase, counted: bool) -> Phrase:
    part = chance.choice([name for name in ("colour", "shape") if getattr(phrase, name)] + ["count"] * counted)
    known = {"colour": COLOURS, "shape": SHAPES, "count": COUNTS}[part]
    return replace(phrase, **{part: chance.choice([one for one in known if one != getattr(phrase, part)])})
