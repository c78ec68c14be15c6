"""The FizBuz handlers without a network: numbers in, bits to the network, words out."""

import sys
from pathlib import Path

import numpy as np
import pytest

from marserve import InvalidData, Service

HANDLERS = Path(__file__).parents[2] / "handlers"


@pytest.fixture(scope="module")
def numbers():
    sys.path.insert(0, str(HANDLERS))
    try:
        import fizbuz_numbers

        yield fizbuz_numbers
    finally:
        sys.path.remove(str(HANDLERS))
        sys.modules.pop("fizbuz_numbers", None)


@pytest.fixture
def service(numbers):
    class AllKnowing(Service):
        """A network that is never wrong: it reads the number from its bits."""

        def inference(self, data):
            self.bits = data
            known = [numbers.word_index(int(bits @ (1 << np.arange(10)))) for bits in data]
            return np.eye(4)[known]

    return type("Player", (numbers.NextNumber, AllKnowing), {})()


def body(number):
    return {"body": {"input.1": number}}


def test_the_game_as_children_play_it(numbers):
    said = [numbers.WORDS[numbers.word_index(n)] or str(n) for n in range(1, 16)]
    assert said == ["1", "2", "Fiz", "4", "Buz", "Fiz", "7", "8", "Fiz", "Buz", "11", "Fiz", "13", "14", "FizBuz"]


def test_bits_come_as_floats_with_the_smallest_first(numbers):
    bits = numbers.bits_of([0, 1, 6, 1023])
    assert bits.dtype == np.float32
    assert bits.tolist() == [[0] * 10, [1] + [0] * 9, [0, 1, 1] + [0] * 7, [1] * 10]


@pytest.mark.parametrize(
    ("number", "word"), [(14, "FizBuz"), (0, "1"), (1022, "Fiz"), (16, "17"), (2.0, "Fiz"), (4, "Buz")]
)
def test_the_answer_speaks_of_the_next_number(service, number, word):
    service.check(body(number))
    assert service.handle([body(number)], None) == [{"next_number": word}]


def test_a_batch_goes_through_the_network_at_once_and_keeps_its_order(service):
    answers = service.handle([body(n) for n in (14, 15, 2, 4)], None)
    assert answers == [{"next_number": word} for word in ("FizBuz", "16", "Fiz", "Buz")]
    assert service.bits.shape == (4, 10)


def test_a_form_field_is_read_as_digits(service):
    row = {"input.1": bytearray(b"14")}
    service.check(row)
    assert service.handle([row], None) == [{"next_number": "FizBuz"}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (body(1023), "expected 0 to 1022, so that the number after it fits 10 bits, got 1023"),
        (body(-1), "got -1"),
        (body(10**400), "got 1000"),
        (body(1.5), "expected a whole number, got 1.5"),
        (body(float("nan")), "expected a whole number, got nan"),
        (body(float("inf")), "got inf"),
        (body(True), "expected a whole number, got true or false"),
        (body("14"), "expected a whole number, got text"),
        (body(None), "expected a whole number, got null"),
        (body([14]), "expected a whole number, got a list"),
        ({"input.1": bytearray(b"14.5")}, "expected a whole number, got text"),
        ({"body": {"input": 14}}, "'input.1' is missing, the request has 'input'"),
        ({"body": 14}, "'input.1' is missing"),
    ],
)
def test_what_is_no_number_of_ten_bits_is_refused_with_the_reason(service, row, reason):
    with pytest.raises(InvalidData) as refused:
        service.check(row)
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 160
