"""The sentences of ``scene_match``: what they mean, that drawn ones are what they should be, and their words."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("sentences", "scene_match_words", "shapes_scenes")


@pytest.fixture(scope="module")
def sentences() -> Iterator[ModuleType]:
    """The module, gone with what it imports when the tests are over."""
    path, before = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(ROOT / "archives" / "scene_match"), str(ROOT / "handlers")]
    import sentences

    yield sentences
    sys.path[:] = path
    for name in set(NAMES) - before:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def words(sentences: ModuleType) -> ModuleType:
    import scene_match_words

    return scene_match_words


@pytest.fixture
def things(sentences: ModuleType) -> list[tuple[object, ...]]:
    """A red circle on the left, a blue star in the middle, another one below it to the right."""
    seen = sentences.Seen
    return [seen("circle", "red", (0.2, 0.5)), seen("star", "blue", (0.5, 0.5)), seen("star", "blue", (0.8, 0.9))]


@pytest.mark.parametrize(
    ("count", "colour", "shape", "holds"),
    [
        ("a", "red", "circle", True),
        ("a", "", "circle", True),
        ("a", "red", "", True),
        ("a", "blue", "star", True),
        ("a", "red", "star", False),
        ("a", "", "square", False),
        ("two", "blue", "star", True),
        ("two", "", "", False),
        ("three", "", "", True),
        ("two", "red", "circle", False),
        ("no", "red", "star", True),
        ("no", "", "star", False),
    ],
)
def test_a_phrase_counts_the_things_of_its_kind(
    sentences: ModuleType, things: list[tuple[object, ...]], count: str, colour: str, shape: str, holds: bool
) -> None:
    phrase = sentences.Phrase(count, colour, shape)

    assert phrase.holds(things) is holds
    assert sentences.Sentence(phrase).holds(things) is holds
    assert sentences.Sentence(phrase, "and", sentences.Phrase("a", "red", "circle")).holds(things) is holds


@pytest.mark.parametrize(
    ("first", "link", "second", "holds"),
    [
        (("a", "red", "circle"), "left of", ("a", "", "star"), True),
        (("a", "", "star"), "left of", ("a", "red", "circle"), False),
        (("a", "", "star"), "right of", ("a", "blue", "star"), True),
        (("a", "", "star"), "below", ("a", "red", "circle"), True),
        (("a", "red", "circle"), "above", ("a", "", "star"), True),
        (("a", "red", "circle"), "below", ("a", "", "star"), None),
        (("a", "", "square"), "above", ("a", "", "star"), False),
        (("a", "red", "circle"), "left of", ("a", "red", ""), False),
    ],
)
def test_a_relation_is_one_of_two_different_things(
    sentences: ModuleType,
    things: list[tuple[object, ...]],
    first: tuple[str, str, str],
    link: str,
    second: tuple[str, str, str],
    holds: bool | None,
) -> None:
    sentence = sentences.Sentence(sentences.Phrase(*first), link, sentences.Phrase(*second))

    assert sentence.holds(things) is holds


def test_exchanging_the_sides_exchanges_left_and_right_alone(
    sentences: ModuleType, things: list[tuple[object, ...]]
) -> None:
    circle, star = sentences.Phrase("a", "", "circle"), sentences.Phrase("a", "", "star")
    mirrored = sentences.mirrored(things)

    assert sentences.Sentence(circle, "right of", star).holds(mirrored) is True
    assert sentences.Sentence(circle, "left of", star).holds(mirrored) is False
    assert sentences.Sentence(star, "below", circle).holds(mirrored) is True


def test_what_is_drawn_is_true_or_false_as_asked_and_in_words_that_are_known(
    sentences: ModuleType, words: ModuleType, things: list[tuple[object, ...]]
) -> None:
    chance = random.Random(3)
    texts = set()
    for number in range(2000):
        seen = chance.sample(things, chance.randint(1, 3))
        is_true = number % 2 == 0
        sentence = sentences.draw_sentence(chance, seen, is_true)
        assert sentence.holds(seen) is is_true
        texts.add(sentence.spoken(chance))
    for text in texts:
        found = words.words_in(text)
        assert words.unknown_in(found) == []
        assert len(found) <= words.MOST_WORDS
    assert {word for text in texts for word in words.words_in(text)} == set(words.WORDS)


def test_words_are_numbers_with_nothing_before_the_first(words: ModuleType) -> None:
    numbers = words.numbers_of(words.words_in("A red, CIRCLE!"))

    assert numbers.tolist() == [0] * 9 + [1 + words.WORDS.index(word) for word in ("a", "red", "circle")]
    assert words.unknown_in(["a", "pink", "hexagon", "pink"]) == ["pink", "hexagon"]
    assert len(words.numbers_of([])) == words.MOST_WORDS
