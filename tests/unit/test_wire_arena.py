"""The arena: regions never overlap, room comes back, and no region leaves its half."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marserve.wire import page
from marserve.wire.arena import Ring, map_arena

SIZE = 100


class RingMachine(RuleBasedStateMachine):
    """Takes and gives back in any order, against a plain list of what is taken."""

    def __init__(self):
        super().__init__()
        self.ring = Ring(SIZE)
        self.taken = []  # (start, end, owner)
        self.owner = 0

    @rule(length=st.integers(1, SIZE + 10), is_new=st.booleans())
    def take(self, length, is_new):
        self.owner += is_new
        start = self.ring.take(length, self.owner)
        if start is None:
            # An empty ring has room for everything that fits at all: no waste can build up.
            assert self.taken or length > SIZE
            return
        assert start >= 0
        assert start + length <= SIZE
        for other_start, other_end, _ in self.taken:
            assert start + length <= other_start or other_end <= start
        self.taken.append((start, start + length, self.owner))

    @rule(data=st.data())
    def give_back(self, data):
        owners = sorted({owner for _, _, owner in self.taken})
        if owners:
            owner = data.draw(st.sampled_from(owners))
            self.ring.give_back(owner)
            self.taken = [region for region in self.taken if region[2] != owner]

    @rule(data=st.data())
    def give_back_until(self, data):
        until = data.draw(st.integers(0, self.owner))
        self.ring.give_back_until(until)
        self.taken = [region for region in self.taken if region[2] > until]

    @invariant()
    def an_empty_ring_holds_nothing_back(self):
        if not self.taken:
            assert len(self.ring) == 0


TestRing = RingMachine.TestCase


def test_a_ring_that_is_given_back_in_order_never_runs_dry():
    ring = Ring(SIZE)
    for owner in range(1, 1000):
        assert ring.take(40, owner) is not None
        assert ring.take(10, owner) is not None
        ring.give_back(owner - 1)


def test_a_full_ring_says_so_and_has_room_again_once_the_oldest_is_free():
    ring = Ring(SIZE)
    assert (ring.take(50, 1), ring.take(50, 2)) == (0, 50)
    assert ring.take(1, 3) is None

    ring.give_back(2)
    assert ring.take(1, 3) is None, "room appears only once the regions before are free"

    ring.give_back(1)
    assert ring.take(SIZE, 3) == 0


def test_a_ring_goes_round_when_its_end_is_too_short():
    ring = Ring(SIZE)
    ring.take(60, 1)
    ring.take(30, 2)
    ring.give_back(1)

    assert ring.take(50, 3) == 0
    assert ring.take(11, 4) is None
    assert ring.take(10, 4) == 50


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4))
def test_what_one_side_writes_the_other_reads(pieces):
    size = 1 << 14
    descriptor = page.create_shared("test", size)
    ours, theirs = map_arena(descriptor, size), map_arena(descriptor, size)
    whole = b"".join(pieces)

    request = ours[0].write(1, pieces, len(whole))
    answer = theirs[1].write(1, [b"answer"], 6)

    assert bytes(theirs[0].view(request, len(whole))) == whole
    assert bytes(ours[1].view(answer, 6)) == b"answer"
    page.os.close(descriptor)


def test_a_region_that_leaves_its_half_is_refused():
    descriptor = page.create_shared("test", 1 << 13)
    [ours, theirs] = map_arena(descriptor, 1 << 13)
    page.os.close(descriptor)

    for offset, length in [(0, 4097), (4096, 1), (2**40, 1), (4095, 2)]:
        with pytest.raises(ValueError, match="leaves an arena half"):
            ours.view(offset, length)
    assert len(theirs.view(0, 4096)) == 4096


def test_a_body_for_which_there_is_no_room_is_not_written():
    descriptor = page.create_shared("test", 1 << 13)
    ours = map_arena(descriptor, 1 << 13)[0]
    page.os.close(descriptor)

    assert ours.write(1, [b"x" * 4000], 4000) == 0
    assert ours.write(2, [b"y" * 200], 200) is None
    assert bytes(ours.view(0, 4000)) == b"x" * 4000
