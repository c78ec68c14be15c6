"""Answers as named tensors, and where and by how much two of them differ."""

import math
from typing import NamedTuple

import pytest
import torch

from marserve.errors import ConfigError, LoadError
from marserve.exporting.answers import gap_between, named


class Pair(NamedTuple):
    boxes: torch.Tensor
    scores: torch.Tensor


ONE, TWO = torch.tensor([[1.0]]), torch.tensor([[2.0]])


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (ONE, ["output"]),
        ((ONE, TWO), ["output_0", "output_1"]),
        ([ONE], ["output_0"]),
        ({"a": ONE, "b": TWO}, ["a", "b"]),
        (Pair(ONE, TWO), ["boxes", "scores"]),
    ],
)
def test_outputs_have_names(output, names):
    assert list(named(output)) == names
    assert list(named(output, ["x", "y"][: len(names)])) == ["x", "y"][: len(names)]


def test_too_many_names_and_what_is_no_tensor_are_refused():
    with pytest.raises(ConfigError, match="--output-names has 2 names, the model 1 outputs: output"):
        named(ONE, ["a", "b"])
    with pytest.raises(LoadError, match="'output_1' is list and no tensor"):
        named((ONE, [TWO]))


def gap(expected, got, tolerance=1e-4):
    return gap_between({"scores": torch.tensor(expected)}, [torch.tensor(got)], tolerance)


def test_the_largest_difference_is_told_with_its_place():
    found = gap([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.5], [3.25, 4.0]])
    assert found.is_too_large
    assert found.amount == 0.5
    assert found.words == (
        "output 'scores' at [0, 1] is 2.5 instead of 2, off by 0.5; "
        "2 of its 4 numbers are off by more than the tolerance of 0.0001"
    )


def test_a_small_number_that_is_off_counts_more_than_a_large_one_within_its_share():
    found = gap([10000.0, 0.5], [10000.5, 0.6], 1e-3)
    assert found.is_too_large
    assert "at [1]" in found.words


def test_a_difference_within_the_tolerance_is_told_too():
    found = gap([[1.0, 2.0]], [[1.0, 2.0 + 2**-14]], 1e-4)
    assert not found.is_too_large
    assert found.amount == 2**-14
    assert "at [0, 1]" in found.words


def test_no_tolerance_asks_for_the_same_numbers():
    assert not gap([1.0, 0.0], [1.0, -0.0], 0.0).is_too_large
    assert gap([1.0], [1.0 + 2**-20], 0.0).is_too_large


@pytest.mark.parametrize(
    ("expected", "got", "is_too_large"),
    [
        (math.nan, math.nan, False),
        (math.inf, math.inf, False),
        (math.inf, -math.inf, True),
        (math.inf, 1.0, True),
        (1.0, math.inf, True),
        (1.0, math.nan, True),
        (math.nan, 1.0, True),
    ],
)
def test_what_is_no_number_is_equal_to_itself_alone(expected, got, is_too_large):
    found = gap([0.0, expected], [0.0, got])
    assert found.is_too_large is is_too_large
    assert found.amount == (math.inf if is_too_large else 0.0)
    assert not is_too_large or "at [1]" in found.words


@pytest.mark.parametrize(
    ("got", "words"),
    [
        ([ONE], "1 outputs instead of 2"),
        ([ONE, TWO[0]], "output 'b' has shape (1,) instead of (1, 1)"),
        ([ONE, TWO.double()], "output 'b' is float64 instead of float32"),
    ],
)
def test_answers_that_cannot_be_compared_differ(got, words):
    found = gap_between({"a": ONE, "b": TWO}, got, 1.0)
    assert (found.words, found.amount, found.is_too_large) == (words, math.inf, True)


def test_the_output_that_differs_most_is_told():
    found = gap_between({"a": ONE, "b": TWO}, [ONE + 1, TWO + 3], 1e-4)
    assert found.words.startswith("output 'b' at [0, 0] is 5 instead of 2")


def test_numbers_of_other_types_and_empty_answers_are_compared():
    assert not gap([True, False], [True, False]).is_too_large
    assert gap([True, False], [True, True]).is_too_large
    assert gap([3, 4], [3, 5]).amount == 1
    assert not gap([], []).is_too_large
