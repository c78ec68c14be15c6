"""One batch through a service: decode and check each request, handle them together, encode each answer.

What fails for one request costs that request alone: it is answered, the others are numbered anew and go on.
"""

from __future__ import annotations

import re
from typing import Dict, FrozenSet, Iterable, List, Optional, Sequence, Tuple

from marserve.errors import HandlerFault, InvalidData
from marserve.service.codec import NATIVE, decode, encode
from marserve.service.context import Context, RequestInfo, RequestProcessor
from marserve.service.inputs import Row
from marserve.worker.faults import UNSENDABLE, Failure, check_result, failure_of
from marserve.worker.loader import Entry
from marserve.worker.steps import DECODE, ENCODE, Steps

#: Headers that are the door's, whatever a service sets: a second line of one would contradict the first.
_OF_THE_DOOR = frozenset(("content-length", "transfer-encoding", "connection", "x-request-id"))
#: The same in the old servers' styles, whose doors put these on every answer.
_OF_THE_OLD_DOORS = _OF_THE_DOOR | {"pragma", "cache-control", "expires"}
#: Printable ASCII but for what separates: the names that TorchServe lets pass.
_IS_NAME = re.compile(r"[!-+\--9<>-~]+").fullmatch


class JobCancelled(BaseException):
    """Raised in the middle of a service by a signal: nobody wants the answers of the running batch any more.

    No ``Exception``, so that a service that catches everything does not swallow it.
    """


class Outcome:
    """What became of one request: an answer, or in ``error`` why there is none.

    Attributes:
        status, phrase: as the service set them.
        headers: flat, name, value, name, value; without the content type.
        content_type: empty when none is to be sent.
    """

    __slots__ = ("body", "content_type", "error", "headers", "phrase", "status")

    def __init__(self, body: bytes, content_type: bytes, error: Optional[Failure] = None) -> None:
        self.status = 200
        self.phrase = b""
        self.headers: Sequence[bytes] = ()
        self.content_type = content_type
        self.body = body
        self.error = error


#: Stands for the outcome of a job that asks for a description, until the service has been asked.
DESCRIBED = Outcome(b"", b"")


def run_batch(
    entry: Entry,
    context: Context,
    jobs: Sequence[RequestInfo],
    style: str,
    steps: Steps,
    decode_input: bool = True,
) -> List[Outcome]:
    """Return one outcome a job, in their order; whatever the service does, every job gets one.

    A service that raises ``InvalidData`` for a batch is asked again for each request alone, so that only those
    it means are refused. Every other exception is the answer to the whole batch.

    Args:
        style: ``native``, ``torchserve`` or ``mms``; see ``service/codec.py``.
        decode_input: whether bodies are decoded by their content type.

    Raises:
        JobCancelled: the running batch is no longer wanted.
    """
    rows, refused = decode_rows(entry, jobs, style, steps, decode_input)
    if not refused:
        return _handle(entry, context, jobs, rows, style, steps, decode_input)
    for index, outcome in refused.items():
        if outcome is DESCRIBED:
            refused[index] = _described(entry, context, jobs[index], style)
    kept = [job for index, job in enumerate(jobs) if index not in refused]
    answers = iter(_handle(entry, context, kept, rows, style, steps, decode_input) if kept else ())
    return [refused.get(index) or next(answers) for index in range(len(jobs))]


def decode_rows(
    entry: Entry, jobs: Sequence[RequestInfo], style: str, steps: Steps, decode_input: bool
) -> Tuple[List[Dict[str, object]], Dict[int, Outcome]]:
    """Return the rows for the service, and by position what is answered without it.

    ``DESCRIBED`` stands there for a job that asks the service to describe itself.
    """
    steps.enter(DECODE)
    check = entry.check
    rows: List[Dict[str, object]] = []
    refused: Dict[int, Outcome] = {}
    for index, job in enumerate(jobs):
        if not job.parts and job.wants_description:
            refused[index] = DESCRIBED
            continue
        try:
            row = decode(job.parts, decode_input, style)
            if check is not None:
                row = Row(row)
                check(row)
            rows.append(row)
        except Exception as error:
            refused[index] = Outcome(b"", b"", failure_of(error, style))
    steps.leave(DECODE)
    return rows, refused


def _described(entry: Entry, context: Context, job: RequestInfo, style: str) -> Outcome:
    """Return what the service says of itself; one without words for it is called with the header ``describe``."""
    context.begin([job])
    describe = getattr(entry.service, "describe_handle", None)
    try:
        result = [describe()] if callable(describe) else entry.handle([{}], context)
        return encode_description(result, context, style)
    except Exception as error:
        return Outcome(b"", b"", failure_of(error, style))


def encode_description(result: object, context: Context, style: str) -> Outcome:
    """Return the outcome of a job that asked for a description."""
    failure = check_result(result, 1)
    if failure is not None:
        return Outcome(b"", b"", failure)
    return encode_results(result, context, style)[0]  # type: ignore[arg-type]


def _handle(
    entry: Entry,
    context: Context,
    jobs: Sequence[RequestInfo],
    rows: List[Dict[str, object]],
    style: str,
    steps: Steps,
    decode_input: bool,
) -> List[Outcome]:
    """Run the service on rows that were found good and encode what it returns."""
    context.begin(jobs)
    try:
        result = entry.handle(rows, context)
    except Exception as error:
        if is_for_each_alone(error, context):
            return [run_batch(entry, context, [job], style, steps, decode_input)[0] for job in jobs]
        return [Outcome(b"", b"", failure_of(error, style))] * len(jobs)
    return outcomes_of(result, context, style, steps)


def is_for_each_alone(error: Exception, context: Context) -> bool:
    """Whether each request of a batch that a service refused is to be asked again by itself."""
    return len(context.requests) > 1 and isinstance(error, InvalidData) and not context.has_sent


def outcomes_of(result: object, context: Context, style: str, steps: Steps) -> List[Outcome]:
    """Return one outcome a request of the batch for what ``handle`` has returned."""
    count = len(context.requests)
    if type(result) is not list or len(result) != count:
        failure = check_result(result, count)
        if failure is not None:
            return [Outcome(b"", b"", failure)] * count
    steps.enter(ENCODE)
    outcomes = encode_results(result, context, style)  # type: ignore[arg-type]
    steps.leave(ENCODE)
    return outcomes


def encode_results(
    values: Iterable[object], context: Context, style: str, positions: Optional[Sequence[int]] = None
) -> List[Outcome]:
    """Return the outcomes of what a service made, with the status and headers that it has set on the context.

    Args:
        positions: the requests that the values are for; None for all of them in their order.
    """
    outcomes = []
    for value in values:
        try:
            body, content_type = encode(value, style)
            outcomes.append(Outcome(body, content_type))
        except Exception as error:
            outcomes.append(Outcome(b"", b"", _element_failure(value, error, style)))
    processors = context.touched()
    if processors is not None:
        chosen = processors if positions is None else [processors[index] for index in positions]
        for processor, outcome in zip(chosen, outcomes):
            if outcome.error is None and not processor.is_untouched:
                _apply(processor, outcome, _OF_THE_DOOR if style == NATIVE else _OF_THE_OLD_DOORS)
    return outcomes


def _element_failure(value: object, error: Exception, style: str) -> Failure:
    """Return the failure for an element that cannot be sent: it may be an exception, the request's own error."""
    if isinstance(value, Exception):
        return failure_of(value, style)
    return failure_of(error, style, UNSENDABLE)


def _apply(processor: RequestProcessor, outcome: Outcome, of_the_door: FrozenSet[str]) -> None:
    """Put the status and headers that the service has set into its answer, but for those of the door."""
    try:
        outcome.status = _status(processor.get_response_status_code())
        outcome.phrase = _line("reason phrase", processor.get_response_status_phrase() or "")
        headers: List[bytes] = []
        for name, value in processor.get_response_headers().items():
            lower = str(name).lower()
            if lower == "content-type":
                outcome.content_type = _line(name, value)
            elif lower not in of_the_door:
                headers += (_name(name), _line(name, value))
        outcome.headers = headers
    except HandlerFault as error:
        outcome.error = failure_of(error, reason=UNSENDABLE)


def _status(code: object) -> int:
    try:
        number = int(code)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        number = 0
    if not 200 <= number <= 999:
        raise HandlerFault(f"The service set the status {code!r}.", "Set a status from 200 to 999.")
    return int(number)


def _name(name: object) -> bytes:
    """Return a header's name; clients refuse an answer that has one with a blank or a colon in it, or none."""
    text = str(name)
    if not _IS_NAME(text):
        raise HandlerFault(
            f"The service set a header named {text!r}, which is no name of one.",
            "Name it by letters, digits and hyphens.",
        )
    return text.encode("ascii")


def _line(what: str, value: object) -> bytes:
    """Return text for the head of an answer; a line break in it would begin a header of the client's choice."""
    text = str(value)
    if any(mark in text for mark in "\r\n\0"):
        raise HandlerFault(f"The service set the {what} to {text!r}, which holds a line break or a zero byte.")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
