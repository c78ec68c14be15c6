"""The rule for who leaves when: full, overdue, or to an idle worker when nobody asked for a delay."""

from __future__ import annotations

import pytest

from marserve.batching.batcher import BatchPolicy, leaves_now

EAGER = BatchPolicy(batch_size=4, max_batch_delay=0.0)
PATIENT = BatchPolicy(batch_size=4, max_batch_delay=0.1)


@pytest.mark.parametrize(
    ("policy", "waiting", "is_idle", "waited", "leaves"),
    [
        (EAGER, 4, False, 0.0, True),  # full leaves for anybody
        (EAGER, 9, False, 0.0, True),
        (EAGER, 1, True, 0.0, True),  # no delay: an idle worker takes what is there
        (EAGER, 3, False, 9.0, False),  # behind a running batch no crumbs, however old
        (PATIENT, 4, True, 0.0, True),
        (PATIENT, 4, False, 0.0, True),
        (PATIENT, 3, True, 0.09, False),  # not full and not overdue waits even for an idle worker
        (PATIENT, 3, True, 0.1, True),  # overdue to the moment
        (PATIENT, 1, False, 0.2, True),  # overdue leaves behind a running batch too: somebody asked for it
        (BatchPolicy(), 1, False, 0.0, True),  # of one job every batch is full
    ],
)
def test_who_leaves(policy, waiting, is_idle, waited, leaves):
    assert leaves_now(policy, waiting, oldest=50.0, is_idle=is_idle, now=50.0 + waited) is leaves
