"""Our end of a worker, against a fake one on the real wire, page and arena."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from marserve.batching.job import Job, JobKind, JobState
from marserve.errors import (
    HandlerFault,
    OutOfMemory,
    PredictionException,
    RemoteProtocolError,
    ServeError,
    WorkerDied,
)
from marserve.supervisor import link as link_module
from marserve.supervisor.link import MOST_BATCHES, Link
from marserve.testing import FakeClock, FakeWorker, RecordingReply, in_fake_time, settle
from marserve.wire import frames, page
from marserve.wire.arena import ARENA_THRESHOLD

ARENA = 4 << 20
LARGE = ARENA_THRESHOLD
SLOW = (0.0, 0.0, 0.0, 0.5, 0.0, 0.0)


#: Sockets of the running test: one that fails half-way must not disturb the next.
SOCKETS = []


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(link_module, "time", clock)
    yield clock
    while SOCKETS:
        SOCKETS.pop().close()


class Owner:
    """A ``LinkOwner`` that keeps what it is told."""

    def __init__(self):
        self.outcome = None
        self.answered_count = 0
        self.lost = None
        self.metrics = []
        self.ended = []

    def link_loaded(self, outcome):
        self.outcome = outcome

    def link_answered(self):
        self.answered_count += 1

    def link_lost(self, error):
        self.lost = error

    def link_metrics(self, metrics):
        self.metrics.append(metrics)

    def jobs_ended(self, jobs):
        self.ended.extend(jobs)


class Bench:
    """A link and its worker, loaded."""

    def __init__(self, buffer=None):
        ours, theirs = socket.socketpair()
        SOCKETS.extend((ours, theirs))
        for sock in (ours, theirs):
            sock.setblocking(False)
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.worker = FakeWorker(theirs)
        ours.recv(4096)  # the hello, which the gate reads
        self.owner = Owner()
        self.link = Link(ours, 1, self.owner, ARENA)
        self.link.load({"model_name": "m"})
        self._ids = 0

    async def loaded(self):
        await settle()
        self.worker.loaded()
        await settle()
        return self

    def jobs(self, *bodies):
        made = []
        for body in bodies:
            self._ids += 1
            whole = b"".join(body) if isinstance(body, list) else body
            parts = [(b"body", b"text/plain", body)]
            one = Job(self._ids, JobKind.PREDICT, b"\n\n", parts, len(whole), RecordingReply(), None, 0.0, 1e9)
            made.append(one)
        return made

    async def send(self, *bodies, now=1000.0):
        """Send a batch and return its jobs and what the worker got."""
        jobs = self.jobs(*bodies)
        self.link.stage(jobs, now)
        self.link.flush()
        return jobs, await self.worker.next_batch()

    def close(self):
        self.link.close()
        self.worker.close()


def bodies(jobs):
    return [job.reply.body for job in jobs]


# The life of a link


@in_fake_time
async def test_a_worker_is_greeted_told_what_to_load_and_heard(clock):
    bench = await Bench().loaded()

    assert bench.worker.told == {"model_name": "m"}
    assert bench.owner.outcome == {"ok": True}
    bench.link.stop()
    await settle()
    assert bench.worker.is_stopped
    bench.close()


@in_fake_time
async def test_both_ends_share_one_page(clock):
    bench = await Bench().loaded()

    bench.link.words[page.POLL_MICROSECONDS] = 200
    bench.worker.words[page.STARTED] = 7

    assert bench.worker.words[page.POLL_MICROSECONDS] == 200
    assert bench.link.words[page.STARTED] == 7
    bench.close()


@in_fake_time
async def test_a_worker_that_goes_is_told_about_once_and_gets_nothing_more(clock):
    bench = await Bench().loaded()
    jobs, _ = await bench.send(b"a")

    bench.worker.close()
    await settle()

    assert isinstance(bench.owner.lost, WorkerDied)
    assert bench.link.is_closed
    assert not bench.link.has_room
    assert bench.link.lose() == ([], jobs)
    bench.link.stop()
    bench.link.close()


# Answers


@in_fake_time
async def test_a_job_gets_its_answer_its_spans_and_its_stamps(clock):
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"hello", now=clock.monotonic())
    clock.advance(2.0)
    bench.worker.serve(batch)
    await settle()

    reply = job.reply
    assert (reply.status, reply.body, reply.headers) == (200, b"hello", [b"content-type", b"application/json"])
    assert (job.state, job.status, job.attempts, job.batch_size) == (JobState.ANSWERED, 200, 1, 1)
    assert job.sent <= job.started <= job.done == clock.monotonic()
    assert len(job.spans) == len(frames.SPANS)
    assert (bench.owner.ended, bench.owner.answered_count) == ([job], 1)
    assert not bench.link.in_flight
    bench.close()


@in_fake_time
async def test_answers_find_their_jobs_by_id_in_whatever_order_they_come(clock):
    bench = await Bench().loaded()
    jobs, batch = await bench.send(b"a", b"b", b"c")

    bench.worker.answer(batch, backwards=True)
    await settle()

    assert bodies(jobs) == [b"a", b"b", b"c"]
    bench.close()


@in_fake_time
async def test_batches_may_be_answered_in_any_order(clock):
    bench = await Bench().loaded()
    first, one = await bench.send(b"a")
    second, two = await bench.send(b"b")

    bench.worker.answer(two)
    await settle()
    assert (bodies(first), bodies(second)) == ([b""], [b"b"])

    bench.worker.answer(one)
    await settle()
    assert bodies(first) == [b"a"]
    bench.close()


@in_fake_time
async def test_several_batches_in_one_write_are_answered_in_one_write(clock):
    bench = await Bench().loaded()
    jobs = bench.jobs(b"a", b"b", b"c")
    for job in jobs:
        bench.link.stage([job], 0.0)
    bench.link.flush()

    await bench.worker.until(lambda: len(bench.worker.batches) == 3)
    for batch in bench.worker.batches:
        bench.worker.serve(batch)
    await settle()

    assert bodies(jobs) == [b"a", b"b", b"c"]
    bench.close()


@in_fake_time
async def test_an_answer_may_be_awaited_in_place_but_not_for_long(clock):
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"a")

    bench.link.await_answer(0.0)
    assert job.reply.ending_count == 0, "it is not there yet, and nobody waits longer than told"

    bench.worker.serve(batch)
    bench.link.await_answer(0.0)
    assert job.reply.body == b"a", "without a turn of the loop"

    bench.worker.close()
    bench.link.await_answer(0.0)
    assert bench.owner.lost is not None
    bench.close()


@in_fake_time
async def test_answers_are_handed_back_even_if_new_work_cannot_be_sent(clock):
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"a")

    def fail():
        raise ValueError("a bug elsewhere")

    bench.owner.link_answered = fail
    bench.worker.serve(batch)
    with pytest.raises(ValueError, match="a bug elsewhere"):
        bench.link._readable()

    assert job.reply.body == b"a"
    bench.close()


@in_fake_time
async def test_a_job_whose_client_has_gone_gets_no_answer_and_its_neighbour_does(clock):
    bench = await Bench().loaded()
    [gone, stays], batch = await bench.send(b"a", b"b")
    gone.state = JobState.ANSWERED

    bench.worker.serve(batch)
    await settle()

    assert (gone.reply.ending_count, stays.reply.body) == (0, b"b")
    assert bench.owner.ended == [stays]
    bench.close()


@in_fake_time
async def test_an_answer_that_the_door_cannot_send_costs_its_neighbours_nothing(clock):
    bench = await Bench().loaded()
    jobs = bench.jobs(b"a", b"b", b"c")
    jobs[1].reply = RecordingReply(refusing=ValueError("42 is no status"))
    bench.link.stage(jobs, 0.0)
    bench.link.flush()

    bench.worker.serve(await bench.worker.next_batch())
    await settle()

    assert bodies(jobs) == [b"a", b"", b"c"]
    assert isinstance(jobs[1].reply.error, HandlerFault)
    assert "42 is no status" in jobs[1].reply.error.message
    assert [job.reply.ending_count for job in jobs] == [1, 1, 1]
    assert bench.owner.ended == jobs
    bench.close()


def error_answer(bench, batch, kind, status=0, **texts):
    pieces = []
    [job] = batch.jobs
    size = frames.encode_answer_parts(pieces, job.id, status, frames.ERROR, kind, b"", frames.text_parts(**texts))
    bench.worker.send_result(batch, pieces, 1, size)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (b"HandlerFault", HandlerFault),
        (b"OutOfMemory", OutOfMemory),
        (b"PredictionException", PredictionException),
        (b"NoSuchKind", ServeError),
        (b"\xff\xfe", ServeError),
    ],
)
@in_fake_time
async def test_an_error_comes_back_as_what_it_was(clock, kind, expected):
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"a")

    error_answer(bench, batch, kind, 418, message="It broke.", hint="Mend it.", traceback="line 1")
    await settle()

    error = job.reply.error
    assert type(error) is expected
    assert error.message == "It broke."
    if expected is HandlerFault:
        assert (error.hint, error.traceback) == ("Mend it.", "line 1")
    if expected is PredictionException:
        assert error.error_code == 418
    assert job.reply.ending_count == 1
    bench.close()


@in_fake_time
async def test_a_service_s_own_metrics_are_passed_on(clock):
    bench = await Bench().loaded()
    _, batch = await bench.send(b"a")

    bench.worker.send_result(batch, [], 0, 0, metrics=b'{"name":"x"}\n')
    await settle()

    assert bench.owner.metrics == [b'{"name":"x"}\n']
    bench.close()


# Workers that lie


def garbage(bench, batch):
    bench.worker.send_raw(random.Random(1).randbytes(64) + b"\xff" * 64)


def other_ids(bench, batch):
    bench.worker.answer(batch._replace(jobs=[job._replace(id=job.id + 100) for job in batch.jobs]))


def one_id_twice(bench, batch):
    bench.worker.answer(batch._replace(jobs=[batch.jobs[0], batch.jobs[0]]))


def too_few(bench, batch):
    bench.worker.answer(batch._replace(jobs=batch.jobs[:1]))


def no_part(bench, batch):
    pieces = []
    size = sum(frames.encode_answer_parts(pieces, job.id, 200, 0, b"", b"", []) for job in batch.jobs)
    bench.worker.send_result(batch, pieces, len(batch.jobs), size)


def outside_of_the_arena(bench, batch):
    pieces = []
    far = frames.Placed(ARENA, LARGE)
    size = sum(frames.encode_answer(pieces, job.id, 200, 0, b"", b"", b"", far) for job in batch.jobs)
    bench.worker.send_result(batch, pieces, len(batch.jobs), size)


def cut_short(bench, batch):
    bench.worker.send_raw(frames.HEAD.pack(10, frames.ANSWER, 0, 2, batch.number) + b"x" * 10)


def out_of_turn(bench, batch):
    bench.worker.loaded()


def deep_json(bench, batch):
    body = b"[" * 100_000
    bench.worker.send_raw(frames.HEAD.pack(len(body), frames.LOADED, 0, 0, 0) + body)


LIES = [garbage, other_ids, one_id_twice, too_few, no_part, outside_of_the_arena, cut_short, out_of_turn, deep_json]


@pytest.mark.parametrize("lie", LIES)
@in_fake_time
async def test_a_worker_that_lies_is_cut_off_and_its_jobs_stay_open(clock, lie):
    bench = await Bench().loaded()
    jobs, batch = await bench.send(b"a", b"b")
    bench.worker.begin(batch)

    lie(bench, batch)
    await settle()

    assert isinstance(bench.owner.lost, RemoteProtocolError)
    assert bench.link.is_closed
    suspects, innocents = bench.link.lose()
    assert suspects == jobs
    assert innocents == []
    assert [job.reply.ending_count for job in jobs] == [0, 0]
    bench.worker.close()


@in_fake_time
async def test_what_was_answered_before_the_lie_counts(clock):
    bench = await Bench().loaded()
    [good], one = await bench.send(b"a")
    [other], two = await bench.send(b"b")
    pieces = []
    size = frames.encode_answer(pieces, good.id, 200, 0, b"", b"", b"", b"answer")
    frame = b"".join(frames.result_frame(one.number, 0, (0.0,) * 6, b"", pieces, 1, size))
    bench.worker.begin(one)
    bench.worker.finish(one)
    bench.worker.begin(two)

    bench.worker.send_raw(frame + frames.encode_message(frames.HELLO, {}))
    await settle()

    assert good.reply.body == b"answer"
    assert bench.link.lose() == ([other], [])
    bench.worker.close()


@in_fake_time
async def test_an_answer_before_the_service_has_loaded_is_a_lie(clock):
    bench = Bench()
    await settle()

    bench.worker.send_raw(b"".join(frames.result_frame(1, 0, SLOW, b"", [], 0, 0)))
    await settle()

    assert isinstance(bench.owner.lost, RemoteProtocolError)
    bench.worker.close()


@in_fake_time
async def test_what_a_later_version_says_is_passed_over(clock):
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"a")

    bench.worker.send_raw(frames.encode_message(frames.METRIC, {}) + frames.encode_message(frames.LOG, {}))
    bench.worker.serve(batch)
    await settle()

    assert job.reply.body == b"a"
    bench.close()


# Large bodies


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("in_pieces", [False, True])
@in_fake_time
async def test_large_bodies_travel_through_the_arena_both_ways(clock, in_pieces):
    bench = await Bench().loaded()
    whole = [noise(LARGE), noise(LARGE + 7, 1), b"small"]
    given = [[body[:1000], body[1000:]] for body in whole] if in_pieces else whole

    jobs, batch = await bench.send(*given)
    places = [type(job.parts[0].body) for job in batch.jobs]
    bench.worker.serve(batch)
    await settle()

    assert places == [frames.Placed, frames.Placed, bytes]
    assert bodies(jobs) == whole
    assert len(bench.link._ours.ring) == 0
    bench.close()


@in_fake_time
async def test_what_the_arena_has_no_room_for_travels_in_the_frame(clock):
    bench = await Bench().loaded()
    whole = [noise(ARENA // 4, seed) for seed in range(5)]

    jobs, batch = await bench.send(*whole)
    bench.worker.serve(batch)
    await asyncio.gather(*(job.reply.ended() for job in jobs))

    assert bytes in {type(job.parts[0].body) for job in batch.jobs}
    assert bodies(jobs) == whole
    bench.close()


@in_fake_time
async def test_a_worker_may_write_over_answers_only_when_all_of_their_batch_are_copied(clock):
    bench = await Bench().loaded()
    link = bench.link
    real, seen = link._theirs, []

    class Half:
        """Notes, at each look into the arena, up to where the worker may write."""

        def view(self, *region):
            seen.append(link.words[page.CONSUMED])
            return real.view(*region)

    link._theirs = Half()
    _jobs, batch = await bench.send(b"a", b"b")

    bench.worker.serve(batch, lambda body: (200, body * LARGE))
    await settle()

    assert seen == [0, 0]
    assert link.words[page.CONSUMED] == batch.number
    bench.close()


@in_fake_time
async def test_the_arena_serves_more_than_it_holds_without_mixing_up_answers(clock):
    bench = await Bench().loaded()
    for turn in range(20):
        whole = [noise(LARGE, turn), noise(LARGE * 3, turn + 100)]
        jobs, batch = await bench.send(*whole)
        bench.worker.serve(batch, lambda body: (200, body[::-1]))
        await settle()
        assert bodies(jobs) == [body[::-1] for body in whole]
    bench.close()


@in_fake_time
async def test_frames_that_the_socket_takes_in_crumbs_arrive_whole(clock):
    bench = await Bench(buffer=4096).loaded()
    whole = [noise(LARGE - 1, seed) for seed in range(3)]
    given = [bench.jobs(body)[0] for body in whole]
    for job in given:
        bench.link.stage([job], 0.0)
        bench.link.flush()  # the second meets a socket that is still full

    for _ in given:
        bench.worker.serve(await bench.worker.next_batch())
    await asyncio.gather(*(job.reply.ended() for job in given))

    assert bodies(given) == whole
    bench.close()


@in_fake_time
async def test_a_worker_that_goes_with_half_a_frame_unread_is_lost_like_any_other(clock):
    bench = await Bench(buffer=4096).loaded()
    jobs = bench.jobs(noise(LARGE - 1))
    bench.link.stage(jobs, 0.0)
    bench.link.flush()

    bench.worker.close()
    await settle()

    assert bench.owner.lost is not None
    assert bench.link.lose() == ([], jobs)


# Blame and taking back


@in_fake_time
async def test_only_what_was_started_and_not_finished_is_to_blame(clock):
    bench = await Bench().loaded()
    finished, one = await bench.send(b"a")
    running, two = await bench.send(b"b", b"c")
    waiting, _ = await bench.send(b"d")
    bench.worker.begin(one)
    bench.worker.finish(one)  # its answers are never sent
    bench.worker.begin(two)
    bench.worker.step("inference")

    assert bench.link.running_step == "inference"
    assert bench.link.lose() == (running, finished + waiting)
    assert not bench.link.in_flight
    bench.close()


@in_fake_time
async def test_a_worker_that_had_finished_all_leaves_no_suspect(clock):
    bench = await Bench().loaded()
    jobs, batch = await bench.send(b"a")
    bench.worker.begin(batch)
    bench.worker.finish(batch)

    assert bench.link.lose() == ([], jobs)
    bench.close()


@in_fake_time
async def test_what_waits_behind_a_running_batch_is_taken_back_in_order(clock):
    bench = await Bench().loaded()
    running, one = await bench.send(b"a")
    second, two = await bench.send(b"b", b"c")
    third, three = await bench.send(b"d")
    bench.worker.begin(one)

    assert bench.link.take_back() == second + third
    assert not bench.worker.begin(two)
    assert not bench.worker.begin(three)
    bench.worker.finish(one)
    bench.worker.answer(one)
    await settle()

    assert bodies(running) == [b"a"]
    _, four = await bench.send(b"e")
    assert bench.worker.begin(four), "what is sent later was not taken back"
    bench.close()


@in_fake_time
async def test_an_answer_to_what_was_taken_back_is_dropped(clock):
    # The worker starts a batch in the very moment in which it is taken back: it runs twice, others answer it.
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"a")
    assert bench.worker.begin(batch)
    bench.link.words[page.STARTED] = 0  # what the server saw

    assert bench.link.take_back() == [job]
    bench.worker.finish(batch)
    bench.worker.answer(batch, lambda body: (200, body * LARGE))
    await settle()

    assert job.reply.ending_count == 0
    assert bench.owner.lost is None
    assert bench.link.words[page.CONSUMED] == batch.number, "the worker gets the room of its answer back"
    bench.close()


@in_fake_time
async def test_arena_regions_of_what_is_taken_back_are_free_again(clock):
    bench = await Bench().loaded()
    for seed in range(30):
        jobs, _ = await bench.send(noise(LARGE, seed))
        assert bench.link.take_back() == jobs
    assert len(bench.link._ours.ring) == 0
    bench.close()


# How long, how deep


@in_fake_time
async def test_a_batch_runs_from_its_start_on_the_page_to_its_end_there(clock):
    bench = await Bench().loaded()
    _, one = await bench.send(b"a", now=clock.monotonic())
    clock.advance(50.0)
    assert bench.link.running_for(clock.monotonic_ns()) == 0.0

    bench.worker.begin(one)
    clock.advance(2.0)
    assert bench.link.running_for(clock.monotonic_ns()) == pytest.approx(2.0)

    bench.worker.finish(one)
    assert bench.link.running_for(clock.monotonic_ns()) == 0.0
    bench.close()


@in_fake_time
async def test_a_worker_that_does_not_even_start_is_silent_too(clock):
    bench = await Bench().loaded()
    assert bench.link.silent_for(clock.monotonic_ns()) == 0.0
    _, one = await bench.send(b"a", now=clock.monotonic())
    _, two = await bench.send(b"b", now=clock.monotonic())
    clock.advance(3.0)
    assert bench.link.silent_for(clock.monotonic_ns()) == pytest.approx(3.0)

    bench.worker.begin(one)
    assert bench.link.silent_for(clock.monotonic_ns()) == pytest.approx(0.0)
    clock.advance(1.0)
    assert bench.link.silent_for(clock.monotonic_ns()) == pytest.approx(1.0)

    bench.worker.finish(one)
    bench.worker.answer(one)
    await settle()
    # Waiting behind the first was no silence of the worker: the second counts from the last start at the earliest.
    assert bench.link.silent_for(clock.monotonic_ns()) == pytest.approx(1.0)

    bench.worker.serve(two)
    await settle()
    assert bench.link.silent_for(clock.monotonic_ns()) == 0.0
    bench.close()


@in_fake_time
async def test_work_is_kept_ahead_of_a_quick_worker_and_not_of_a_slow_one(clock):
    bench = await Bench().loaded()
    assert bench.link.depth == 1
    _, batch = await bench.send(b"a")
    assert not bench.link.has_room
    bench.worker.serve(batch)
    await settle()
    assert bench.link.depth == MOST_BATCHES

    _, batch = await bench.send(b"a")
    bench.worker.begin(batch)
    bench.worker.finish(batch)
    bench.worker.answer(batch, spans=SLOW)
    await settle()
    assert bench.link.depth == 1, "one slow batch ends the work ahead"

    for _ in range(200):
        _, batch = await bench.send(b"a")
        bench.worker.serve(batch)
        await settle()
    assert bench.link.depth == MOST_BATCHES, "and is forgotten in time"
    bench.close()


@pytest.mark.parametrize(
    ("is_alone", "spent", "depth"), [(True, 0.014, 2), (False, 0.014, 1), (True, 0.2, 1), (True, 0.0001, 10)]
)
@in_fake_time
async def test_one_batch_is_kept_ahead_where_nobody_else_could_take_it(clock, is_alone, spent, depth):
    bench = await Bench().loaded()
    bench.link.is_alone = is_alone
    _, batch = await bench.send(b"a")
    bench.worker.answer(batch, spans=(0.0, 0.0, 0.0, spent, 0.0, 0.0))
    await settle()
    assert bench.link.depth == depth
    bench.close()


@pytest.mark.parametrize("spent", [float("nan"), float("inf"), -1.0])
@in_fake_time
async def test_spans_that_make_no_sense_cost_nobody_an_answer(clock, spent):
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"a")

    bench.worker.answer(batch, spans=(0.0, 0.0, 0.0, spent, 0.0, 0.0))
    await settle()

    assert job.reply.body == b"a"
    assert 1 <= bench.link.depth <= MOST_BATCHES
    bench.close()


# Answers in pieces


@in_fake_time
async def test_pieces_reach_their_jobs_one_by_one_and_the_answer_is_the_last(clock):
    bench = await Bench().loaded()
    jobs, batch = await bench.send(b"a", b"b")
    bench.worker.begin(batch)

    bench.worker.send_pieces(batch, b"a0", b"b0")
    bench.worker.send_pieces(batch, b"a1", b"b1")
    await settle()
    assert [job.reply.pieces for job in jobs] == [[b"a0", b"a1"], [b"b0", b"b1"]]
    assert [job.reply.ending_count for job in jobs] == [0, 0]
    assert len(bench.link.in_flight) == 1

    bench.worker.finish(batch)
    bench.worker.answer(batch)
    await settle()
    assert [job.reply.pieces[-1] for job in jobs] == [b"a", b"b"]
    assert [job.reply.ending_count for job in jobs] == [1, 1]
    bench.close()


@in_fake_time
async def test_a_client_that_does_not_read_its_pieces_is_cut_off_and_its_neighbour_is_not(clock, monkeypatch):
    monkeypatch.setattr(link_module, "MOST_UNREAD", 1000)
    bench = await Bench().loaded()
    [slow, quick], batch = await bench.send(b"a", b"b")
    slow.reply.reads = False
    piece = bytes(link_module.MOST_UNREAD // 4)

    for _ in range(5):
        bench.worker.send_pieces(batch, piece, b"b")
        await settle()
    assert slow.reply.ending_count == 1
    assert "unread" in slow.reply.error.message
    assert sum(map(len, slow.reply.pieces)) <= link_module.MOST_UNREAD + len(piece)

    bench.worker.serve(batch)
    await settle()
    assert quick.reply.pieces == [*[b"b"] * 5, b"b"]
    assert slow.reply.ending_count == 1
    bench.close()


@in_fake_time
async def test_a_piece_for_a_job_of_another_batch_is_a_lie(clock):
    bench = await Bench().loaded()
    _, batch = await bench.send(b"a")
    [other], _ = await bench.send(b"b")
    batch.jobs[0] = batch.jobs[0]._replace(id=other.id)

    bench.worker.send_pieces(batch, b"a0")
    await settle()

    assert isinstance(bench.owner.lost, RemoteProtocolError)
    bench.close()


@pytest.mark.parametrize(
    ("meta", "content_type"), [(b"X-A\nb\r", b""), (b"", b"text/plain\r\nX-B: c"), (b"", b"text/plain\nX-B: c")]
)
@in_fake_time
async def test_a_line_end_in_a_header_reaches_no_client(clock, meta, content_type):
    bench = await Bench().loaded()
    [job], batch = await bench.send(b"a")
    pieces = []
    size = frames.encode_answer(pieces, batch.jobs[0].id, 200, 0, b"", meta, content_type, b"x")

    bench.worker.begin(batch)
    bench.worker.finish(batch)
    bench.worker.send_result(batch, pieces, 1, size)
    await settle()

    assert job.reply.ending_count == 1
    assert isinstance(job.reply.error, HandlerFault)
    assert "line end" in job.reply.error.message
    bench.close()
