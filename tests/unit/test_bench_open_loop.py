"""An open load counts what a stall costs everybody, and knows when it was late itself."""

import heapq

import pytest
from bench.open_loop import MOST_LAG, Flight, findings, schedule

#: Seconds that the server of these tests takes when it does not stall.
SERVICE = 0.001


def fly(due, connections, answer_at, wake_late=0.0):
    """Let a flight run against a server that answers at ``answer_at(now)``, on a clock of its own."""
    flight, free, answers, now = Flight(due), list(range(connections)), [], 0.0
    while not flight.is_over:
        moments = [moment for moment in (flight.next_due, answers[0][0] if answers else None) if moment is not None]
        now = max(now, min(moments))
        flight.take_due(now + wake_late)
        while answers and answers[0][0] <= now:
            connection = heapq.heappop(answers)[1]
            flight.answered(connection, now)
            free.append(connection)
        while flight.waiting and free:
            connection = free.pop()
            flight.send(connection)
            heapq.heappush(answers, (answer_at(now), connection))
    return flight


def evenly(rate, seconds):
    return [number / rate for number in range(1, round(rate * seconds))]


def stalls(begin, end):
    """Answer after SERVICE, but nothing between two moments."""
    return lambda now: (end if begin <= now < end else now) + SERVICE


@pytest.mark.parametrize("connections", [1, 4, 500])
def test_stall_is_paid_by_all_that_were_due_meanwhile(connections):
    # given 100 requests a second for 3 s, and a server that stands still for the second one
    flight = fly(evenly(100, 3), connections, stalls(1.0, 2.0))
    # then every request is there, and half of those due in the stall waited for half of it or longer, where a load
    # that waits for its answers would have asked once a connection; one connection needs longer to catch up
    assert len(flight.latencies) == 299
    assert sum(latency > 0.5 for latency in flight.latencies) == pytest.approx(53, abs=5)
    assert max(flight.latencies) == pytest.approx(1.0 + SERVICE, abs=0.02)
    # and its own lateness is none: it is the server that was late
    assert max(flight.lags) == 0.0


def test_server_that_keeps_up_shows_its_own_time():
    flight = fly(evenly(100, 1), 4, lambda now: now + SERVICE)
    assert max(flight.latencies) == pytest.approx(SERVICE)


def test_server_below_the_rate_falls_behind_more_and_more():
    # given one connection that takes 20 ms an answer, and 100 requests a second
    flight = fly(evenly(100, 1), 1, lambda now: now + 0.02)
    # then the last has waited for about as long as the load took, since half of the work was left at its end
    assert flight.latencies[-1] == pytest.approx(1.0, abs=0.05)


def test_load_that_is_late_itself_is_void():
    due = evenly(100, 1)
    flight = fly(due, 4, lambda now: now + SERVICE, wake_late=2 * MOST_LAG)
    assert findings(flight, 100, 1.0, {}).is_void
    assert not findings(fly(due, 4, lambda now: now + SERVICE), 100, 1.0, {}).is_void


def test_what_is_never_answered_counts_with_what_it_waited():
    flight = Flight([0.5, 1.0, 9.0])
    flight.take_due(1.0)
    flight.send(1)
    assert flight.give_up(3.0) == 3
    assert flight.latencies == [2.5, 2.0, 0.0]
    assert flight.is_over


def test_connection_that_is_lost_holds_nothing_any_more():
    flight = Flight([0.5])
    flight.take_due(0.5)
    flight.send(3)
    assert flight.lost(3)
    assert not flight.lost(3)


def test_schedule_has_the_rate_and_is_the_same_each_time():
    due = schedule(2000, 5)
    assert len(due) == pytest.approx(10_000, rel=0.03)
    assert due == sorted(due) == schedule(2000, 5)
    assert due[0] > 0
    assert due[-1] < 5


def test_percentiles_are_those_of_the_latencies():
    flight = Flight([], latencies=[number / 1000 for number in range(1000)], lags=[0.0001])
    found = findings(flight, 500, 2.0, {"status": 1})
    assert (found.p50, found.p90, found.p99, found.p999) == (0.5, 0.9, 0.99, 0.999)
    assert (found.requests, found.rate, found.errors) == (1000, 500, {"status": 1})
