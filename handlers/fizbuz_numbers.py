"""Numbers as bits and words: what the FizBuz services and the training script share.

Each FizBuz archive carries this file beside its handler, so that an archive is complete on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marserve import InvalidData, Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

BITS = 10
#: What the network is trained on: all that fits its bits, except 0.
NUMBERS = range(1, 2**BITS)
#: By index of the network's output; the first stands for the number itself.
WORDS = ("", "Fiz", "Buz", "FizBuz")
#: What a client may send: numbers whose successor is one of NUMBERS.
LAST = NUMBERS[-1] - 1


def word_index(number: int) -> int:
    """Return the index in ``WORDS`` of what is to be said for a number: the truth to train and to test with."""
    return (number % 3 == 0) + 2 * (number % 5 == 0)


def bits_of(numbers: Iterable[int]) -> NDArray[np.float32]:
    """Return the numbers as ``float32 (numbers, 10)``, values 0 or 1, the bit worth 1 first."""
    column = np.fromiter(numbers, np.int64)[:, None]
    return ((column >> np.arange(BITS)) & 1).astype(np.float32)


#: The bits of every number, by number: picking rows is three times as fast as shifting bits.
_BITS = bits_of(range(2**BITS))


class NextNumber(Service):
    """Says the word for the next number: ``{"input.1": 14}`` gives ``{"next_number": "FizBuz"}``.

    Stands before the service that runs the network, which takes ``float32 (batch, 10)`` and gives the scores of
    ``WORDS``, ``(batch, 4)``. Numbers and scores go from step to step together, because where the network says
    that no word fits, the answer is the number as text.
    """

    def check(self, item: dict[str, Any]) -> None:
        """Refuse what is not a whole number of 0 to 1022, each alone and with the reason."""
        number_in(item)

    def preprocess(self, data: list[dict[str, Any]]) -> tuple[list[int], NDArray[np.float32]]:
        """Return the numbers to speak of, and their bits."""
        numbers = [number_in(row) + 1 for row in data]
        return numbers, _BITS[numbers]

    def inference(self, data: tuple[list[int], NDArray[np.float32]]) -> tuple[list[int], Any]:
        """Return the numbers, and the scores of the words for each."""
        numbers, bits = data
        return numbers, super().inference(bits)

    def postprocess(self, data: tuple[list[int], Any]) -> list[dict[str, str]]:
        """Return the word with the highest score for each number."""
        numbers, scores = data
        indices = scores.argmax(1).tolist()
        return [{"next_number": WORDS[i] or str(number)} for number, i in zip(numbers, indices, strict=True)]


def number_in(row: dict[str, Any]) -> int:
    """Return the number that a request brings; a form's field brings it as the bytes of its digits.

    Raises:
        InvalidData: it is missing, not a whole number, or its successor does not fit ten bits.
    """
    number = Service.value(row, "input.1")
    if isinstance(number, bytearray) and number.isdigit():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidData(f"input 'input.1': expected a whole number, got {_in_words(number)}.")
    if number != number // 1:
        raise InvalidData(f"input 'input.1': expected a whole number, got {number!r}.")
    if not 0 <= number <= LAST:
        raise InvalidData(
            f"input 'input.1': expected 0 to {LAST}, so that the number after it fits {BITS} bits, "
            f"got {str(number)[:24]}."
        )
    return int(number)


def _in_words(value: object) -> str:
    names = {bool: "true or false", str: "text", bytearray: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
