"""Jobs that travel together to a worker, and the way of their answers back to whoever waits for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

from marserve.batching.job import Job, JobState
from marserve.errors import HandlerFault, PredictionException, RemoteProtocolError, ServeError, by_kind
from marserve.wire import frames

log = logging.getLogger("marserve.link")

_ERRORS = by_kind()


class Batch:
    """Jobs that travel together to one worker."""

    __slots__ = ("heard", "in_arena", "jobs", "number", "sent")

    def __init__(self, number: int, jobs: list[Job], sent: float) -> None:
        self.number = number
        self.jobs = jobs
        self.sent = sent
        #: when its last sign of life came: a piece of an answer, or that it was sent
        self.heard = sent
        self.in_arena = False


#: A batch that came back: itself, its jobs in the order of the answers, the answers, their bodies, spans, service
#: time.
Answered = tuple[Batch, list[Job], list[frames.AnswerIn], list[bytes], tuple[float, ...], float]


def hand_back(answered: Sequence[Answered], now: float) -> list[Job]:
    """Hand every answer to the job that it is for; return the jobs that have ended with it."""
    ended: list[Job] = []
    for batch, jobs, answers, bodies, spans, spent in answered:
        started = now - spent
        if started < batch.sent:
            started = batch.sent
        size = len(jobs)
        for job, answer, body in zip(jobs, answers, bodies, strict=True):
            if job.state is JobState.ANSWERED:
                continue  # its client went away meanwhile
            job.state = JobState.ANSWERED
            job.parts = ()
            job.spans = spans
            job.started = started
            job.batch_size = size
            job.done = now
            if answer.flags & frames.ERROR:
                job.fail(_error(answer))
            else:
                try:
                    if job.has_begun:
                        job.reply.chunk(body)
                        job.reply.end()
                    else:
                        job.status = answer.status
                        headers = headers_of(answer.meta, answer.parts[0].content_type)
                        job.reply.answer(answer.status, answer.phrase, headers, body)
                # E.g. a status that HTTP does not have; it must cost no other its answer.
                except Exception as error:
                    log.exception("The answer of %r could not be sent.", job)
                    job.fail(HandlerFault(f"The service's answer cannot be sent: {error}"))
            ended.append(job)
    return ended


def in_order(jobs: list[Job], answers: list[frames.AnswerIn]) -> list[Job]:
    """Return a batch's jobs in the order of its answers; ids tell which is whose.

    Raises:
        RemoteProtocolError: the answers are not those of these jobs.
    """
    if len(jobs) == len(answers) and all(job.id == answer.id for job, answer in zip(jobs, answers, strict=True)):
        return jobs
    by_id = {job.id: job for job in jobs}
    if len(answers) != len(by_id) or {answer.id for answer in answers} != by_id.keys():
        raise RemoteProtocolError(f"A batch of {len(jobs)} jobs came back with {len(answers)} answers of other ids.")
    return [by_id[answer.id] for answer in answers]


@lru_cache(64)
def headers_of(meta: bytes, content_type: bytes) -> tuple[bytes, ...]:
    """Return the headers of an answer, flat, its content type with them; most answers have the same.

    Raises:
        ValueError: a line end in one of them would begin a header, or an answer, of the worker's choice.
    """
    headers = frames.split_headers(meta)
    if b"\r" in meta or b"\r" in content_type or b"\n" in content_type:
        raise ValueError("a header of it holds a line end")
    if content_type:
        headers += (b"content-type", content_type)
    return tuple(headers)


def _error(answer: frames.AnswerIn) -> ServeError:
    """Return the error that an answer carries, as the class that its kind names."""
    texts = {
        part.name: bytes(part.body).decode("utf-8", "replace") for part in answer.parts if type(part.body) is bytes
    }
    message = texts.get(b"message", "")
    kind = answer.phrase.decode("ascii", "replace")
    if kind == PredictionException.kind:
        return PredictionException(message, answer.status or 500)
    error = _ERRORS.get(kind, ServeError)(message, texts.get(b"hint"))
    if isinstance(error, HandlerFault):
        error.traceback = texts.get(b"traceback", "")
        error.fault = texts.get(b"fault", "")
    return error
