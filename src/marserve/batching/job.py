"""A job: one request from its acceptance to its one answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

from marserve.errors import HandlerFault, ServeError

log = logging.getLogger("marserve.job")

#: A request's or an answer's named part: name, content type ("" when unknown), bytes in one or more pieces.
Part = tuple[bytes, bytes, "bytes | memoryview | list[bytes]"]


class JobState(IntEnum):
    """Where a job is; it only moves forward, except that ``SENT`` may go back to ``QUEUED``."""

    QUEUED = 0
    SENT = 1
    ANSWERED = 2


class JobKind(IntEnum):
    """What is asked of the service; the numbers are the wire's."""

    PREDICT = 0
    EXPLAIN = 1
    DESCRIBE = 2


class Reply(Protocol):
    """Where the answer of one job goes. A door implements it; nobody above knows what is behind it.

    Exactly one of these sequences reaches it: ``answer``; ``start``, any number of ``chunk``, ``end``; or
    ``fail`` (also after ``start``: the door then breaks the answer off so that the client can see it).
    """

    def answer(self, status: int, phrase: bytes, headers: Sequence[bytes], body: bytes | memoryview) -> None:
        """Send a whole answer. ``headers`` is flat: name, value, name, value."""

    def start(self, status: int, phrase: bytes, headers: Sequence[bytes]) -> None:
        """Begin an answer in pieces."""

    def chunk(self, data: bytes) -> bool:
        """Send one piece, never merged with another; False when the reader is slow and more should wait."""

    def end(self) -> None:
        """End an answer in pieces."""

    def fail(self, error: ServeError) -> object:
        """Answer with an error; the door's dialect chooses status and text."""


class Job:
    """One request. Made by a plane, kept in a queue, carried by a link, ended exactly once.

    Attributes:
        id: unique in this server process; the wire and the logs know the job by it.
        kind: predict, explain or describe.
        meta: what the worker is told beside the parts: see ``wire/frames.py``.
        parts: named parts of the body, raw; none once the job has ended, as it is kept until it has been counted.
        size: bytes of all parts together.
        reply: where the answer goes.
        model_version: the owner, for the observer alone.
        asked_version: the version as the client asked for it, "" for the default.
        lane: sequence key; jobs of one lane keep their order. "" for none.
        priority: higher goes first among those that wait.
        deadline: moment on the monotonic clock after which nobody wants the answer.
        cost: the share of a batch that this job takes; 1.0 unless a version says otherwise.
        trace: W3C trace parent as received, b"" for none.
        parent: id of the job that this one serves (workflows), 0 for none.
        client, target, method: who asked for what, for the access log.
        has_begun: whether the first piece of an answer in pieces has been sent.
        unread: bytes of such an answer that its reader has not taken yet, about.
        attempts: times that the job was sent to a worker.
        arrived, sent, started, done: moments on the monotonic clock, 0.0 until known.
        filled: when the newest job of its batch had arrived.
        spans: seconds that the worker reports, by ``wire.frames.STEPS``.
    """

    __slots__ = (
        "arrived",
        "asked_version",
        "attempts",
        "batch_size",
        "client",
        "cost",
        "deadline",
        "done",
        "error",
        "filled",
        "has_begun",
        "id",
        "kind",
        "lane",
        "meta",
        "method",
        "model_version",
        "parent",
        "parts",
        "priority",
        "reply",
        "sent",
        "size",
        "spans",
        "started",
        "state",
        "status",
        "target",
        "trace",
        "unread",
    )

    def __init__(
        self,
        id: int,
        kind: int,
        meta: bytes,
        parts: Sequence[Part],
        size: int,
        reply: Reply,
        model_version: object,
        arrived: float,
        deadline: float,
    ) -> None:
        self.id = id
        self.kind = kind
        self.meta = meta
        self.parts = parts
        self.size = size
        self.reply = reply
        self.model_version = model_version
        self.arrived = arrived
        self.deadline = deadline
        self.asked_version = ""
        self.lane = ""
        self.priority = 0
        self.cost = 1.0
        self.trace = b""
        self.parent = 0
        self.client: object = ""
        self.target = b""
        self.method = b""
        self.state = JobState.QUEUED
        self.attempts = 0
        self.filled = self.sent = self.started = self.done = 0.0
        self.batch_size = 0
        self.has_begun = False
        self.unread = 0
        self.status = 0
        self.error: ServeError | None = None
        self.spans: tuple[float, ...] = ()

    def fail(self, error: ServeError) -> None:
        """Hand an error to the reply. Never raises: what a door cannot send must cost no other job its answer."""
        self.error = error
        try:
            self.reply.fail(error)
        except Exception as problem:
            log.exception("The error of %r could not be sent: %s", self, error)
            self.error = HandlerFault(f"The answer cannot be sent: {problem}")
            try:
                self.reply.fail(self.error)
            except Exception:
                log.exception("Nor could be told why; its client gets no answer.")

    def __repr__(self) -> str:
        return f"<Job {self.id} {JobKind(self.kind).name.lower()} {self.state.name.lower()} attempts={self.attempts}>"
