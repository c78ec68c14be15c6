"""Our end of one worker: sends batches, takes in answers, and knows what the worker has in its hands."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from marserve.batching.job import Job, JobState
from marserve.errors import Cancelled, HandlerFault, LocalProtocolError, RemoteProtocolError, ServeError, WorkerDied
from marserve.supervisor.batch import Answered, Batch, hand_back, headers_of, in_order
from marserve.wire import frames, page
from marserve.wire.arena import ARENA_THRESHOLD, Half, map_arena
from marserve.wire.protocol import SERVER, next_state
from marserve.wire.streams import Inbox, send_with_descriptors

log = logging.getLogger("marserve.link")

#: Work that is kept ahead of a worker, seconds: covers the server's longest tick, hides the wire.
AHEAD = 0.001
#: Longest service time for which the only worker of a version has a batch waiting behind the running one, seconds:
#: for longer ones the way there and back hardly counts, but a deadline might pass unseen.
SHORT = 0.1
#: Most batches in a worker's hands at once while few wait, and whatever waits.
MOST_BATCHES, DEEPEST = 16, 256
#: Most batches in the hands of a worker that runs them beside each other.
MOST_CONCURRENT = 1024
#: Most bytes of an answer in pieces that wait for a client to read them.
MOST_UNREAD = 16 << 20
#: Looks at the socket for an answer that the page has announced: it is there within microseconds.
LOOKS = 50
#: Weight of the past in the recent maximum of the service time, per batch: halves in about 7 batches. A worker that
#: is preempted looks slow once; a service that is slow now and then stays slow for this estimate.
DECAY = 0.9


class LinkOwner(Protocol):
    """Who is told what comes over a link: the worker in its pool."""

    def link_loaded(self, outcome: dict[str, object]) -> None:
        """The service has loaded, or has failed to."""

    def link_answered(self) -> None:
        """Some batches have been answered: there is room."""

    def link_lost(self, error: ServeError) -> None:
        """The worker closed the link, or broke the rules of the wire."""

    def link_metrics(self, metrics: bytes) -> None:
        """The service has added metrics."""

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        """Jobs have their answers."""


class Link:
    """One worker as seen from here. A remote worker would have no page and no arena, and depth 1."""

    def __init__(self, sock: socket.socket, number: int, owner: LinkOwner, arena_bytes: int) -> None:
        # Lifetime of the link
        self.number = number
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fileno = sock.fileno()
        self._owner = owner
        self._inbox = Inbox(sock)
        self._reader = frames.FrameReader()
        self._state = next_state(SERVER, "open", frames.HELLO)
        self.is_closed = False
        self._memory, self.words = self._share(arena_bytes)
        # What the worker has in its hands
        self.in_flight: dict[int, Batch] = {}
        self._last_number = 0
        self.slowest = 0.0
        self.depth = 1
        #: whether the worker runs its batches beside each other, and so takes any number of them at once
        self.is_concurrent = False
        #: whether there is no other worker that could take sooner what waits behind the running batch
        self.is_alone = False
        self.batch_count = 0
        # What could not be written yet
        self._staged: list[frames.Bytes] = []
        self._unsent: list[memoryview] = []
        self._loop.add_reader(self._fileno, self._readable)

    def _share(self, arena_bytes: int) -> tuple[tuple[object, list[Half]], memoryview]:
        """Make the page and the arena and send them with the welcome; the worker maps the same memory."""
        with ExitStack() as opened:
            page_fd = page.create_shared("marserve-page", page.PAGE_SIZE)
            opened.callback(os.close, page_fd)
            arena_fd = page.create_shared("marserve-arena", arena_bytes)
            opened.callback(os.close, arena_fd)
            mapping, words = page.map_page(page_fd)
            halves = map_arena(arena_fd, arena_bytes)
            welcome = {"version": frames.WIRE_VERSION, "link": self.number, "arena_bytes": arena_bytes}
            frame = frames.encode_message(frames.WELCOME, welcome)
            send_with_descriptors(self._sock, frame, [page_fd, arena_fd])
        self._ours, self._theirs = halves
        return (mapping, halves), words

    # Sending

    def load(self, what: dict[str, object]) -> None:
        """Tell the worker what to load."""
        self._write([frames.encode_message(frames.LOAD, what)])

    def stop(self) -> None:
        """Tell the worker to end once it has done what it has."""
        if not self.is_closed:
            self._write([frames.encode_message(frames.STOP, {})])

    def run_concurrently(self) -> None:
        """The worker's service runs batches beside each other: nothing waits behind another, none is quick."""
        self.is_concurrent = True
        self.depth = MOST_CONCURRENT
        self.slowest = math.inf

    def give_up(self, batch: Batch) -> None:
        """Ask a concurrent worker to cancel a batch that nobody waits for any more; it answers it all the same."""
        if not self.is_closed:
            self._write([frames.encode_message(frames.CANCEL, {"batch": batch.number})])

    @property
    def has_room(self) -> bool:
        """Whether the worker can be given a batch more."""
        return len(self.in_flight) < self.depth

    def stage(self, jobs: list[Job], now: float) -> None:
        """Prepare a batch for the next ``flush``; several go out in one write."""
        self._last_number = number = self._last_number + 1
        batch = Batch(number, jobs, now)
        self.in_flight[number] = batch
        pieces = self._staged
        at = len(pieces)
        pieces.append(b"")
        size = 0
        sent = JobState.SENT
        filled = jobs[-1].arrived
        for job in jobs:
            job.state = sent
            job.sent = now
            job.filled = filled
            job.attempts += 1
            parts = job.parts if job.size < ARENA_THRESHOLD else self._place(batch, job)
            size += frames.encode_job(pieces, job.id, job.kind, job.meta, parts, job.deadline - now)
        pieces[at] = frames.batch_head(size, len(jobs), number)

    def _place(self, batch: Batch, job: Job) -> list[tuple[bytes, bytes, frames.Body | frames.Placed]]:
        """Put the large parts of a job into the arena; those for which it has no room travel in the frame."""
        parts: list[tuple[bytes, bytes, frames.Body | frames.Placed]] = []
        for name, content_type, body in job.parts:
            pieces = body if isinstance(body, list) else [bytes(body)]
            length = sum(map(len, pieces))
            offset = None
            if length >= ARENA_THRESHOLD:
                offset = self._ours.write(batch.number, pieces, length)
            if offset is None:
                parts.append((name, content_type, pieces))
            else:
                batch.in_arena = True
                parts.append((name, content_type, frames.Placed(offset, length)))
        return parts

    def flush(self) -> None:
        """Write all that is staged."""
        if self._staged:
            pieces = self._staged
            self._staged = []
            self.words[page.SENT] = self._last_number
            self._write(pieces)

    def _write(self, pieces: Sequence[frames.Bytes]) -> None:
        data = b"".join(pieces)
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader side hears of the end and tells the owner
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._loop.add_writer(self._fileno, self._writable)

    def _writable(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent[0])
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    return
                self._unsent.pop(0)
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        self._loop.remove_writer(self._fileno)

    # Receiving

    def _readable(self) -> None:
        try:
            data = self._inbox.receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._take_in(data)

    def await_answer(self, seconds: float) -> None:
        """Watch for the answer to the only batch in flight without going back to the loop, at most so long.

        The loop would go to sleep and be woken again, which takes longer than a quick service does.
        """
        clock, words, number = time.perf_counter, self.words, self._last_number
        end = clock() + seconds
        while words[page.FINISHED] < number:
            if clock() >= end:
                return
        for _ in range(LOOKS):
            try:
                data = self._inbox.receive()
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                return  # the loop will hear of it
            self._take_in(data)
            return

    def _take_in(self, data: bytes) -> None:
        answered: list[Answered] = []
        try:
            if not data:
                raise WorkerDied("The worker closed its link.")
            for kind, flags, count, number, body in self._reader.feed(data):
                if kind == frames.ANSWER and self._state == "ready":
                    if flags & frames.MORE:
                        self._on_pieces(number, count, body)
                    else:
                        self._on_result(number, count, body, answered)
                else:
                    self._on_control(kind, body)
        except Exception as error:
            if not isinstance(error, ServeError):  # the answers that came before it must not be lost with it
                log.exception("What a worker sent could not be taken in.")
                error = LocalProtocolError(f"What it sent could not be taken in: {error}.")
            self._hand_back(answered)
            self.close()
            self._owner.link_lost(error)
            return
        if answered:
            # First new work for the worker, then the answers: it would else idle while they are written.
            try:
                self._owner.link_answered()
            finally:  # these jobs are in nobody's hands but ours now
                self._hand_back(answered)

    def _on_control(self, kind: int, body: bytes) -> None:
        self._state = next_state(SERVER, self._state, kind)
        if kind == frames.LOADED:
            self._owner.link_loaded(frames.decode_message(body))

    def _on_result(self, number: int, count: int, body: bytes, answered: list[Answered]) -> None:
        """Check the answers of a batch and note them; nothing in flight is let go before they are good."""
        spans, metrics, answers = frames.decode_result(body, count)
        if metrics:
            self._owner.link_metrics(metrics)
        batch = self.in_flight.get(number)
        if batch is None:
            self.words[page.CONSUMED] = number  # nobody will read these answers: their room is free
            return  # taken back, and run all the same: others have these jobs now
        jobs = in_order(batch.jobs, answers)
        bodies = [self._body(answer) for answer in answers]
        del self.in_flight[number]
        if batch.in_arena:
            self._ours.ring.give_back(number)
        # With all of the batch copied out: the worker may write over its regions from here on.
        self.words[page.CONSUMED] = number
        answered.append((batch, jobs, answers, bodies, spans, self._learn(spans)))

    def _on_pieces(self, number: int, count: int, body: bytes) -> None:
        """Hand on pieces of answers whose batch still runs; each is one piece for the client, never merged."""
        batch = self.in_flight.get(number)
        if batch is None:
            return  # taken back: others have these jobs now
        batch.heard = time.monotonic()
        by_id = {job.id: job for job in batch.jobs}
        for answer in frames.decode_result(body, count).answers:
            job = by_id.get(answer.id)
            if job is None:
                raise RemoteProtocolError(f"A piece is for job {answer.id}, which is not in its batch.")
            if job.state is not JobState.ANSWERED:
                self._hand_piece(job, answer, self._body(answer))
        if self.is_concurrent and all(job.state is JobState.ANSWERED for job in batch.jobs):
            self.give_up(batch)  # its clients do not read

    def _hand_piece(self, job: Job, answer: frames.AnswerIn, piece: bytes) -> None:
        """Send a piece to the client; one that does not read is cut off before it fills the memory."""
        try:
            if not job.has_begun:
                job.status = answer.status
                job.reply.start(answer.status, answer.phrase, headers_of(answer.meta, answer.parts[0].content_type))
                job.has_begun = True
            job.unread = 0 if job.reply.chunk(piece) else job.unread + len(piece)
        except Exception as error:  # e.g. a status that HTTP does not have
            log.exception("A piece of the answer of %r could not be sent.", job)
            self.end(job, HandlerFault(f"A piece of the service's answer cannot be sent: {error}"))
        if job.unread > MOST_UNREAD:
            self.end(job, Cancelled(f"The client left {job.unread} bytes of its answer unread."))

    def end(self, job: Job, error: ServeError) -> None:
        """End a job whose batch still runs; what still comes for it is dropped."""
        job.state = JobState.ANSWERED
        job.parts = ()
        job.done = time.monotonic()
        job.fail(error)
        self._owner.jobs_ended((job,))

    def _body(self, answer: frames.AnswerIn) -> bytes:
        """Return the body of an answer, copied out of the arena when it is there."""
        if not answer.parts:
            if answer.flags & frames.ERROR:
                return b""
            raise RemoteProtocolError(f"The answer of job {answer.id} has no part.")
        body = answer.parts[0].body
        if type(body) is bytes:
            return body
        assert isinstance(body, frames.Placed)
        try:
            return bytes(self._theirs.view(body.offset, body.length))
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from error

    def _hand_back(self, answered: Sequence[Answered]) -> None:
        ended = hand_back(answered, time.monotonic())
        if ended:
            self._owner.jobs_ended(ended)

    def _learn(self, spans: Sequence[float]) -> float:
        """Set the depth from the recent maximum of the service time: one slow batch ends the work ahead.

        Returns the service time of this batch, seconds.
        """
        self.batch_count += 1
        spent = sum(spans[1:])
        if self.is_concurrent:
            return spent
        slowest = self.slowest * DECAY
        self.slowest = slowest = spent if spent > slowest else slowest
        if slowest * MOST_BATCHES <= AHEAD:
            self.depth = MOST_BATCHES
        else:
            self.depth = max(2 if self.is_alone and slowest <= SHORT else 1, int(AHEAD / slowest))
        return spent

    # What the page tells

    def running_for(self, now_ns: int) -> float:
        """Return how long the running batch has been running, seconds; 0.0 when none runs."""
        words = self.words
        if words[page.STARTED] <= words[page.FINISHED]:
            return 0.0
        return max(0.0, (now_ns - words[page.SINCE]) / 1e9)

    def silent_for(self, now_ns: int) -> float:
        """Return for how long a worker that has work has neither started nor finished a batch, seconds.

        Like ``running_for`` while a batch runs. A worker that does not even start one is stuck outside of the
        service: stopped, or its link is jammed.
        """
        if not self.in_flight:
            return 0.0
        words = self.words
        since = words[page.SINCE] / 1e9
        if words[page.STARTED] <= words[page.FINISHED]:
            since = max(since, next(iter(self.in_flight.values())).sent)
        return max(0.0, now_ns / 1e9 - since)

    @property
    def running_step(self) -> str:
        """The step that runs, or ran last."""
        return frames.SPANS[min(self.words[page.STEP], len(frames.SPANS) - 1)]

    def take_back(self) -> list[Job]:
        """Take what the worker has not started away from it, and return it in order.

        The worker may start one of these batches in the very moment of this call. Then it runs twice and the
        first answer to come back counts: nothing is lost, nothing is answered twice.
        """
        words = self.words
        words[page.TAKEN_BACK] = self._last_number
        return self._remove_after(words[page.STARTED])

    def _remove_after(self, started: int) -> list[Job]:
        jobs: list[Job] = []
        for number in [number for number in self.in_flight if number > started]:
            batch = self.in_flight.pop(number)
            if batch.in_arena:
                self._ours.ring.give_back(number)
            jobs.extend(batch.jobs)
        return jobs

    def lose(self) -> tuple[list[Job], list[Job]]:
        """Return (suspects, innocents) of a worker that is gone; nothing is in flight afterwards.

        Suspects were started and not finished. What was finished but not answered, and what was not started,
        has nothing to do with the end and is run again by another worker.
        """
        started, finished = self.words[page.STARTED], self.words[page.FINISHED]
        suspects: list[Job] = []
        innocents: list[Job] = []
        for number, batch in self.in_flight.items():
            (suspects if finished < number <= started else innocents).extend(batch.jobs)
        self.in_flight.clear()
        return suspects, innocents

    def close(self) -> None:
        """Close the socket; the page stays readable for the autopsy."""
        if self.is_closed:
            return
        self.is_closed = True
        self.depth = 0  # no room: nothing is given to a worker that cannot be reached
        self._loop.remove_reader(self._fileno)
        if self._unsent:
            self._loop.remove_writer(self._fileno)
            self._unsent.clear()
        self._sock.close()
