"""The queue of a version: its bound, its order, and what no longer counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marserve.batching.batcher import BatchPolicy
from marserve.batching.job import Job, JobKind, JobState
from marserve.batching.queue import JobQueue
from marserve.errors import HandlerFault, NoWorker, QueueFull
from marserve.testing import RecordingReply


def job(id, arrived=0.0, deadline=1000.0):
    return Job(id, JobKind.PREDICT, b"", [], 0, RecordingReply(), None, arrived, deadline)


def queue(*ids, bound=100, size=1, delay=0.0):
    made = JobQueue(bound, BatchPolicy(size, delay))
    for id in ids:
        made.put(job(id, arrived=float(id)))
    return made


def ids(jobs):
    return [one.id for one in jobs]


def give_up(made, one):
    """What a pool does when a client that waits in the queue goes away."""
    made.cancel(one)
    one.state = JobState.ANSWERED


# The bound


def test_the_bound_is_the_most_that_waits():
    made = queue(1, 2, bound=2)

    with pytest.raises(QueueFull, match="2 jobs") as refused:
        made.put(job(3))

    assert "job_queue_size" in refused.value.hint
    assert ids(made.peek(9)) == [1, 2]


def test_a_job_that_leaves_makes_room():
    made = queue(1, 2, bound=2)
    made.take(True, 0.0)
    made.put(job(3))

    assert ids(made.peek(9)) == [2, 3]


def test_a_cancelled_job_makes_room_at_once():
    made = queue(1, 2, bound=2)
    give_up(made, made.peek(1)[0])

    made.put(job(3))

    assert len(made) == 2
    with pytest.raises(QueueFull):
        made.put(job(4))


def test_what_is_put_back_has_been_accepted_and_does_not_count_against_the_bound():
    made = queue(1, 2, bound=2)
    [first] = made.take(True, 0.0)
    made.put(job(3))

    made.put_back([first])

    assert ids(made.peek(9)) == [1, 2, 3]


# The order


def test_jobs_leave_in_the_order_of_their_arrival():
    made = queue(1, 2, 3, 4, 5, size=2)

    assert [ids(made.take(True, 0.0)) for _ in range(3)] == [[1, 2], [3, 4], [5]]
    assert made.take(True, 0.0) is None


def test_what_is_put_back_goes_to_the_head_in_its_order():
    made = queue(1, 2, 3, 4, 5, size=3)
    batch = made.take(True, 0.0)
    for one in batch:
        one.state = JobState.SENT

    made.put_back(batch)

    assert ids(made.peek(9)) == [1, 2, 3, 4, 5]
    assert {one.state for one in made.peek(9)} == {JobState.QUEUED}


def test_a_job_that_is_over_is_not_put_back():
    made = queue(3)
    over, open_one = job(1), job(2)
    over.state = JobState.ANSWERED

    made.put_back([over, open_one])

    assert ids(made.peek(9)) == [2, 3]
    assert over.state is JobState.ANSWERED
    assert len(made) == 2


# Who leaves


def test_nothing_waits_for_nobody():
    assert queue().take(True, 0.0) is None
    assert not queue()


def test_an_idle_worker_takes_what_is_there_when_there_is_no_delay():
    assert ids(queue(1, 2, size=4).take(True, 0.0)) == [1, 2]


def test_behind_a_running_batch_only_a_full_one_leaves():
    made = queue(1, 2, 3, size=4)
    assert not isinstance(made.take(False, 9.0), list)

    made.put(job(4))

    assert ids(made.take(False, 9.0)) == [1, 2, 3, 4]


def test_a_batch_that_is_not_full_tells_when_it_will_be_overdue():
    made = queue(1, 2, size=4, delay=0.5)

    assert made.take(True, 1.2) == 1.5
    assert ids(made.take(True, 1.5)) == [1, 2]


def test_the_delay_counts_from_the_oldest_that_still_waits():
    made = queue(1, 2, size=4, delay=0.5)
    give_up(made, made.peek(1)[0])

    assert made.take(True, 1.6) == 2.5


# What is over


def test_a_cancelled_job_never_leaves():
    made = queue(1, 2, 3, size=2)
    give_up(made, made.peek(2)[1])

    assert ids(made.take(True, 0.0)) == [1, 3]
    assert len(made) == 0


def test_a_queue_of_cancelled_jobs_is_empty():
    made = queue(1, 2, size=2, delay=9.0)
    for one in made.peek(2):
        give_up(made, one)

    assert not made
    assert made.take(True, 99.0) is None


def test_jobs_whose_deadline_has_passed_are_handed_out_once():
    made = queue(bound=5)
    for id, deadline in [(1, 10.0), (2, 30.0), (3, 20.0)]:
        made.put(job(id, deadline=deadline))
    give_up(made, made.peek(1)[0])

    assert ids(made.expire(20.0)) == [3]
    assert ids(made.expire(20.0)) == []
    assert ids(made.take(True, 20.0)) == [2]


def test_the_end_of_a_version_hands_out_all_that_waits():
    made = queue(1, 2, 3)
    give_up(made, made.peek(1)[0])

    assert ids(made.take_all()) == [2, 3]
    assert len(made) == 0
    assert made.take(True, 0.0) is None


@pytest.mark.parametrize("hand_out", [JobQueue.take_all, lambda made: made.expire(5000.0)])
def test_ending_one_job_may_end_another_of_those_handed_out(hand_out):
    # When an error closes a connection, what else was asked over it is given up in the same moment.
    made = queue(1, 2)
    [_first, second] = hand_out(made)

    if second.state is JobState.QUEUED:
        made.cancel(second)

    assert len(made) == 0


@given(st.lists(st.sampled_from(["put", "take", "back", "cancel", "expire"]), max_size=60), st.integers(1, 4))
def test_no_job_gets_lost_or_doubled_whatever_happens(steps, size):
    made = JobQueue(8, BatchPolicy(size))
    inside, outside, over = [], [], 0
    for number, step in enumerate(steps):
        if step == "put":
            one = job(number, float(number), deadline=number + 20.0)
            try:
                made.put(one)
            except QueueFull:
                assert len(inside) >= 8
            else:
                inside.append(one)
        elif step == "take":
            batch = made.take(True, 0.0) or []
            assert batch == inside[:size]
            inside, outside = inside[len(batch) :], batch
            for one in batch:
                one.state = JobState.SENT
        elif step == "back":
            made.put_back(outside)
            inside, outside = outside + inside, []
        elif step == "cancel" and inside:
            one = inside.pop(number % len(inside))
            give_up(made, one)
            over += 1
        elif step == "expire":
            late = made.expire(float(number))
            assert set(ids(late)) == {one.id for one in inside if one.deadline <= number}
            inside = [one for one in inside if one not in late]
        assert len(made) == len(inside)
    assert made.take_all() == inside


# A job's end


def test_an_error_that_the_door_cannot_send_is_told_in_other_words():
    class Door(RecordingReply):
        def fail(self, error):
            if isinstance(error, NoWorker):
                raise ValueError("42 is no status")
            super().fail(error)

    one = job(1)
    one.reply = Door()

    one.fail(NoWorker("x"))

    assert isinstance(one.reply.error, HandlerFault)
    assert "42 is no status" in one.reply.error.message
    assert one.error is one.reply.error


def test_a_door_that_can_send_nothing_does_not_take_others_with_it():
    class Door(RecordingReply):
        def fail(self, error):
            raise ValueError("closed")

    one = job(1)
    one.reply = Door()

    one.fail(NoWorker("x"))

    assert isinstance(one.error, HandlerFault)
