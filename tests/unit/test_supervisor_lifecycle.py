"""The life of workers and versions as tables: what may follow, when to try again, and what it is called."""

from __future__ import annotations

from itertools import pairwise

import pytest

from marserve.errors import LocalProtocolError
from marserve.supervisor.lifecycle import (
    RESTARTS,
    WORKER_MOVES,
    RestartPolicy,
    Row,
    VersionState,
    WorkerState,
    check_move,
    version_state,
)

POLICY = RestartPolicy(waits=(0.0, 1.0, 2.0), window=10.0, settle=5.0)


def test_a_worker_goes_the_way_that_it_should():
    way = [WorkerState.STARTING, WorkerState.LOADING, WorkerState.READY, WorkerState.STOPPING, WorkerState.GONE]
    for before, after in pairwise(way):
        assert check_move(before, after) is after


@pytest.mark.parametrize("state", [state for state in WorkerState if WORKER_MOVES[state]])
def test_a_worker_may_die_at_any_time(state):
    assert check_move(state, WorkerState.DIED) is WorkerState.DIED


@pytest.mark.parametrize("state", [WorkerState.GONE, WorkerState.DIED])
@pytest.mark.parametrize("after", WorkerState)
def test_nothing_comes_after_the_end(state, after):
    with pytest.raises(LocalProtocolError, match=f"from {state} to {after}"):
        check_move(state, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WorkerState.STARTING, WorkerState.READY),
        (WorkerState.READY, WorkerState.GONE),
        (WorkerState.STOPPING, "ready"),
    ],
)
def test_no_step_is_skipped_or_taken_back(before, after):
    with pytest.raises(LocalProtocolError):
        check_move(before, WorkerState(after))


def test_the_waits_between_tries_grow_to_the_last_which_repeats():
    row = Row(POLICY)

    assert [row.next_wait(100.0 + at, 0.0) for at in range(5)] == [0.0, 1.0, 2.0, 2.0, 2.0]
    assert row.failures == 5


def test_the_tries_are_over_when_the_window_has_passed():
    row = Row(POLICY)
    row.next_wait(100.0, 0.0)

    assert row.next_wait(110.0, 0.0) == 1.0
    assert row.next_wait(110.5, 0.0) is None


def test_a_worker_that_has_served_for_a_while_begins_a_new_row():
    row = Row(POLICY)
    row.next_wait(100.0, 0.0)
    row.next_wait(101.0, 4.9)

    assert row.next_wait(500.0, 5.0) == 0.0
    assert row.next_wait(501.0, 0.0) == 1.0


def test_a_row_may_end_with_each_load_that_succeeds():
    row = Row(RESTARTS["torchserve"])

    assert [row.next_wait(100.0 + at, 0.0) for at in range(6)] == [1, 1, 2, 3, 5, 8]
    assert row.next_wait(500.0, 0.1) == 1
    assert row.next_wait(501.0, 0.0) == 1


@pytest.mark.parametrize(
    ("target", "ready", "starting", "has_failed", "is_draining", "state"),
    [
        (0, 0, 0, False, False, VersionState.REGISTERED),
        (2, 0, 2, False, False, VersionState.STARTING),
        (2, 1, 1, False, False, VersionState.DEGRADED),
        (2, 1, 0, True, False, VersionState.DEGRADED),  # one serves: not failed
        (2, 2, 0, False, False, VersionState.READY),
        (1, 2, 0, False, False, VersionState.READY),
        (2, 0, 0, True, False, VersionState.FAILED),
        (2, 0, 1, True, False, VersionState.STARTING),  # another is still on its way
        (2, 2, 0, False, True, VersionState.DRAINING),
        (0, 0, 0, True, True, VersionState.DRAINING),
    ],
)
def test_what_a_version_is_called(target, ready, starting, has_failed, is_draining, state):
    assert version_state(target, ready, starting, has_failed, is_draining) is state
