"""Numbers as bits and words: what the FizBuz services and the training script share.

Each FizBuz archive carries this file beside its handler, so that an archive is complete on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marserve.errors import InvalidData

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

BITS = 10
#: What the network was trained on: all that fits its bits, except 0.
NUMBERS = range(1, 2**BITS)
#: By index of the network's output. The first stands for the number itself.
WORDS = ("", "Fiz", "Buz", "FizBuz")
INPUT = "input.1"
OUTPUT = "next_number"


def word_index(number: int) -> int:
    """Return the index in ``WORDS`` of what a child says for this number; the truth to train and test with."""
    return (number % 3 == 0) + 2 * (number % 5 == 0)


def bits_of(numbers: Iterable[int]) -> NDArray[np.float32]:
    """Return the numbers as ``float32 (numbers, 10)``, values 0 or 1, the bit worth 1 first."""
    column = np.fromiter(numbers, np.int64)[:, None]
    return ((column >> np.arange(BITS)) & 1).astype(np.float32)
