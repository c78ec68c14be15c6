"""The tree of errors: as its docstring draws it, each with a kind that finds it again."""

from __future__ import annotations

import inspect
import re

import pytest

from marserve import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.ServeError)]


def drawn():
    """Return (class, parent) of each line of the drawing."""
    parents, pairs = [], []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ]*(?:├──|└──) )?([A-Z]\w+)(?: |$)", line)
        if found and hasattr(errors, found[2]):
            depth = len(found[1] or "") // 4
            parents[depth:] = [found[2]]
            pairs.append((found[2], parents[depth - 1] if depth else None))
    return pairs


def test_the_drawing_shows_the_tree():
    tree = {cls.__name__: cls.__base__.__name__ for cls in CLASSES if cls is not errors.ServeError}
    # PredictionException is a service's own choice of an answer: no branch of who must act.
    tree.pop("PredictionException")

    assert dict(drawn()) == {"ServeError": None, **tree}


@pytest.mark.parametrize("cls", CLASSES)
def test_a_kind_finds_a_class_of_that_kind(cls):
    found = errors.by_kind()[cls.kind]

    assert found.kind == cls.kind
    assert issubclass(cls, found) or issubclass(found, cls)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_says_what_it_is(cls):
    error = cls("It broke.")

    assert error.message == "It broke."
    assert str(error).startswith("It broke.")
    assert cls.__doc__


def test_an_error_reads_as_what_happened_and_what_to_do_next():
    assert str(errors.QueueFull("The queue is full.", "Wait.")) == "The queue is full. Wait."
    assert str(errors.QueueFull("The queue is full.")).endswith(errors.QueueFull.default_hint)
    assert str(errors.QueueFull("The queue is full.", "")) == "The queue is full."


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.__name__ == cls.kind])
def test_a_kind_finds_the_class_of_its_name(cls):
    assert errors.by_kind()[cls.kind] is cls


def test_an_error_can_be_about_a_model():
    error = errors.about(errors.NoWorker("x"), "digits", "1.0")

    assert (error.model, error.version) == ("digits", "1.0")
    assert isinstance(error, errors.NoWorker)


def test_a_service_chooses_its_status():
    assert errors.PredictionException("x").error_code == 500
    assert errors.PredictionException("x", 418).error_code == 418
    assert str(errors.PredictionException("x", 418)) == "x : 418"
    assert str(errors.PredictionException({"a": 1})) == "{'a': 1} : 500"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("The port is taken.", "The port is taken. Take another."),
        ("Model not found: x", "Model not found: x. Take another."),  # a text of an old server
    ],
)
def test_a_message_and_its_hint_are_two_sentences(message: str, told: str) -> None:
    assert str(errors.ServeError(message, "Take another.")) == told
