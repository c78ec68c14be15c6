"""Messages of the wire as values and as bytes: what server and worker say to each other. No I/O here.

A frame is a head and a body, little endian throughout::

    head    u32 body length · u8 kind · u8 flags · u16 count · u64 batch
    BATCH   count x job:     u64 id · u8 kind · u8 flags · u16 parts · u32 meta length · f32 seconds
                             parts x part head
                             meta · parts x (name · content type · body)
    ANSWER  6 x f32 spans · u32 metrics length · metrics
            count x answer:  u64 id · u16 status · u8 flags · u8 0 · u16 parts · u16 phrase length · u32 meta length
                             parts x part head
                             phrase · meta · parts x (name · content type · body)
    part head                u16 name length · u16 content type length · u32 place · u64 body length
    others  JSON

``place`` is ``INLINE`` (the body follows) or ``ARENA`` (a u64 offset into the sender's half of the link's
arena follows instead). A job's meta is ``META_FIELDS`` lines and then the request's headers, raw and in their
original letter case, as name, value, name, value, one a line: neither may hold a line feed, which HTTP
guarantees. An answer's meta is its headers in the same form; an error's phrase is the error's kind and its
parts are ``message``, ``hint`` and ``traceback``.

Answers are matched by id, never by position. Spans of time cross the wire, moments never do: the clocks of two
machines have nothing in common.
"""

import json
import math
import struct
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from marserve.errors import LocalProtocolError, RemoteProtocolError

#: Raised by one with every change that an older peer cannot read.
WIRE_VERSION = 1

# Kinds of frame. CANCEL, CREDIT, LOG and METRIC are reserved: a peer that gets one it does not know ignores it.
HELLO, WELCOME, LOAD, LOADED, BATCH, ANSWER, STOP = 1, 2, 3, 4, 5, 6, 7
# Between the server and a parent alone, the process that workers are forked from: fork one; it is forked; become one.
FORK, FORKED, SERVE = 8, 9, 10
CANCEL, CREDIT, LOG, METRIC = 16, 17, 18, 19
KINDS = {
    HELLO: "hello",
    WELCOME: "welcome",
    LOAD: "load",
    LOADED: "loaded",
    BATCH: "batch",
    ANSWER: "answer",
    STOP: "stop",
    FORK: "fork",
    FORKED: "forked",
    SERVE: "serve",
    CANCEL: "cancel",
    CREDIT: "credit",
    LOG: "log",
    METRIC: "metric",
}

# Flags of a frame and of an answer.
MORE, LAST, ERROR, RETURNED = 1, 2, 4, 8

# Kinds of job, in the order of ``batching.job.JobKind``.
PREDICT, EXPLAIN, DESCRIBE = 0, 1, 2

# Where a part's body is.
INLINE, ARENA = 0, 1

#: Names of an answer's spans, in wire order: waiting in the worker, then its steps, all in seconds.
SPANS = ("wait", "decode", "preprocess", "inference", "postprocess", "encode")

#: Lines of a job's meta before the headers.
META_FIELDS = ("envelope", "url_path", "trace")

#: Most jobs in one batch, and most bytes of a name or a content type: what two bytes can say.
MOST_JOBS = MOST_NAME = 0xFFFF
#: Most bytes of one frame: a length beyond is taken for garbage, not waited for.
MAX_FRAME = 1 << 31

HEAD = struct.Struct("<IBBHQ")
HEAD_SIZE = HEAD.size
_JOB = struct.Struct("<QBBHIf")
_ANSWER = struct.Struct("<QHBBHHI")
_PART = struct.Struct("<HHIQ")
_JOB_ONE = struct.Struct("<QBBHIfHHIQ")
_ANSWER_ONE = struct.Struct("<QHBBHHIHHIQ")
_RESULT = struct.Struct("<6fI")
_OFFSET = struct.Struct("<Q")
# The usual job and the usual answer have one part, whose head follows theirs: one look instead of two.
_JOB_ONE_SIZE, _ANSWER_ONE_SIZE = _JOB_ONE.size, _ANSWER_ONE.size
_unpack_one, _unpack_answer = _JOB_ONE.unpack_from, _ANSWER_ONE.unpack_from
#: Makes a named tuple in half the time of its own constructor.
_new = tuple.__new__

Bytes = Union[bytes, bytearray, memoryview]
Body = Union[bytes, bytearray, memoryview, List[bytes]]


class Placed(NamedTuple):
    """A body that lives in the arena: what crosses the wire instead of it."""

    offset: int
    length: int


class PartIn(NamedTuple):
    """A part as received; ``body`` is a ``Placed`` when it is in the arena."""

    name: bytes
    content_type: bytes
    body: Union[bytes, Placed]


class JobIn(NamedTuple):
    """A job as the worker receives it."""

    id: int
    kind: int
    meta: bytes
    parts: List[PartIn]
    #: until nobody wants the answer any more, when it was sent
    seconds_left: float = math.inf


class AnswerIn(NamedTuple):
    """An answer as the server receives it."""

    id: int
    status: int
    flags: int
    phrase: bytes
    meta: bytes
    parts: List[PartIn]


class Result(NamedTuple):
    """The body of an ANSWER frame."""

    spans: Tuple[float, ...]
    metrics: bytes
    answers: List[AnswerIn]


def encode_message(kind: int, value: Mapping[str, object]) -> bytes:
    """Return a frame that carries ``value`` as JSON: every kind but BATCH and ANSWER."""
    body = json.dumps(value).encode()
    return HEAD.pack(len(body), kind, 0, 0, 0) + body


def decode_message(body: Bytes) -> Dict[str, object]:
    """Return the value of a JSON frame.

    Raises:
        RemoteProtocolError: the body is not a JSON object.
    """
    try:
        value = json.loads(bytes(body).decode())
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"A control frame does not hold JSON: {error}.") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError("A control frame does not hold a JSON object.")
    return value


def encode_job(
    out: List[Bytes],
    id: int,
    kind: int,
    meta: bytes,
    parts: Sequence[Tuple[bytes, bytes, Union[Body, Placed]]],
    seconds_left: float = math.inf,
) -> int:
    """Append the pieces of a job to ``out`` and return how many bytes they are."""
    if len(parts) == 1:
        name, content_type, body = parts[0]
        if type(body) is bytes:
            size = len(body)
            out.append(
                _JOB_ONE.pack(id, kind, 0, 1, len(meta), seconds_left, len(name), len(content_type), INLINE, size)
            )
            out.append(meta)
            out.append(name)
            out.append(content_type)
            out.append(body)
            return _JOB_ONE_SIZE + len(meta) + len(name) + len(content_type) + size
    start = len(out)
    out.append(_JOB.pack(id, kind, 0, len(parts), len(meta), seconds_left))
    return sum(map(len, out[start:])) + _encode_parts(out, meta, parts)


def _encode_parts(out: List[Bytes], meta: bytes, parts: Sequence[Tuple[bytes, bytes, Union[Body, Placed]]]) -> int:
    """Append part heads, meta and parts; return their bytes."""
    start = len(out)
    tail: List[Bytes] = [meta]
    for name, content_type, body in parts:
        tail.append(name)
        tail.append(content_type)
        if isinstance(body, Placed):
            out.append(_PART.pack(len(name), len(content_type), ARENA, body.length))
            tail.append(_OFFSET.pack(body.offset))
            continue
        pieces = body if isinstance(body, list) else [body]
        out.append(_PART.pack(len(name), len(content_type), INLINE, sum(map(len, pieces))))
        tail.extend(pieces)
    out.extend(tail)
    return sum(map(len, out[start:]))


def batch_head(size: int, count: int, batch: int) -> bytes:
    """Return the head of a BATCH frame whose jobs are ``size`` bytes."""
    return HEAD.pack(size, BATCH, 0, count, batch)


def decode_jobs(body: Bytes, count: int) -> List[JobIn]:
    """Return the jobs of a BATCH frame's body.

    Raises:
        RemoteProtocolError: the body is shorter or longer than its own lengths say.
    """
    jobs: List[JobIn] = []
    at = 0
    view = body if type(body) is bytes else bytes(body)
    size = len(view)
    new = _new
    try:
        for _ in range(count):
            if size - at >= _JOB_ONE_SIZE:
                found = _unpack_one(view, at)
                id, kind, _flags, part_count, meta_size, left, name_size, type_size, place, body_size = found
                if part_count == 1 and place == INLINE:
                    meta_at = at + _JOB_ONE_SIZE
                    name_at = meta_at + meta_size
                    type_at = name_at + name_size
                    body_at = type_at + type_size
                    at = body_at + body_size
                    part = new(PartIn, (view[name_at:type_at], view[type_at:body_at], view[body_at:at]))
                    jobs.append(new(JobIn, (id, kind, view[meta_at:name_at], [part], left)))
                    continue
            id, kind, _flags, part_count, meta_size, left = _JOB.unpack_from(view, at)
            heads_at = at + _JOB.size
            meta_at = heads_at + _PART.size * part_count
            at = meta_at + meta_size
            meta = view[meta_at:at]
            parts, at = _decode_parts(view, heads_at, part_count, at)
            jobs.append(JobIn(id, kind, meta, parts, left))
    except struct.error as error:
        raise RemoteProtocolError(f"A batch frame ends too early: {error}.") from error
    if at != size:
        raise RemoteProtocolError(f"A batch frame of {size} bytes holds jobs of {at}.")
    return jobs


def _decode_parts(view: bytes, heads_at: int, count: int, at: int) -> Tuple[List[PartIn], int]:
    parts: List[PartIn] = []
    for index in range(count):
        name_size, type_size, place, body_size = _PART.unpack_from(view, heads_at + 16 * index)
        name_end = at + name_size
        name = view[at:name_end]
        at = name_end + type_size
        content_type = view[name_end:at]
        if place:
            if place != ARENA:
                raise RemoteProtocolError(f"A part's body is said to be in place {place}, which there is not.")
            parts.append(PartIn(name, content_type, Placed(_OFFSET.unpack_from(view, at)[0], body_size)))
            at += 8
        else:
            end = at + body_size
            parts.append(PartIn(name, content_type, view[at:end]))
            at = end
    return parts, at


def encode_answer(
    out: List[Bytes],
    id: int,
    status: int,
    flags: int,
    phrase: bytes,
    meta: bytes,
    content_type: bytes,
    body: Union[Bytes, Placed],
) -> int:
    """Append the pieces of an answer with one part to ``out`` and return how many bytes they are."""
    if type(body) is bytes:
        size = len(body)
        out.append(
            _ANSWER_ONE.pack(id, status, flags, 0, 1, len(phrase), len(meta), 0, len(content_type), INLINE, size)
        )
        out.append(phrase)
        out.append(meta)
        out.append(content_type)
        out.append(body)
        return 36 + len(phrase) + len(meta) + len(content_type) + size
    return encode_answer_parts(out, id, status, flags, phrase, meta, [(b"", content_type, body)])


def encode_answer_parts(
    out: List[Bytes],
    id: int,
    status: int,
    flags: int,
    phrase: bytes,
    meta: bytes,
    parts: Sequence[Tuple[bytes, bytes, Union[Body, Placed]]],
) -> int:
    """Append the pieces of an answer with any number of parts and return how many bytes they are."""
    head = _ANSWER.pack(id, status, flags, 0, len(parts), len(phrase), len(meta))
    # The phrase stands between the part heads and the meta: handing both over as one keeps one writer of parts.
    out.append(head)
    return len(head) + _encode_parts(out, phrase + meta, parts)


def result_frame(
    batch: int, flags: int, spans: Sequence[float], metrics: bytes, answers: List[Bytes], count: int, size: int
) -> List[Bytes]:
    """Return the pieces of an ANSWER frame whose answers are ``size`` bytes."""
    result = _RESULT.pack(*spans, len(metrics))
    return [HEAD.pack(len(result) + len(metrics) + size, ANSWER, flags, count, batch), result, metrics, *answers]


def decode_result(body: bytes, count: int) -> Result:
    """Return what an ANSWER frame's body holds.

    Raises:
        RemoteProtocolError: the body is shorter or longer than its own lengths say.
    """
    answers: List[AnswerIn] = []
    size = len(body)
    new = _new
    try:
        values = _RESULT.unpack_from(body)
        at = _RESULT.size + values[6]
        metrics = body[_RESULT.size : at]
        for _ in range(count):
            if size - at >= _ANSWER_ONE_SIZE:
                found = _unpack_answer(body, at)
                (
                    id,
                    status,
                    flags,
                    _zero,
                    part_count,
                    phrase_size,
                    meta_size,
                    name_size,
                    type_size,
                    place,
                    body_size,
                ) = found
                if part_count == 1 and place == INLINE:
                    phrase_at = at + _ANSWER_ONE_SIZE
                    meta_at = phrase_at + phrase_size
                    name_at = meta_at + meta_size
                    type_at = name_at + name_size
                    body_at = type_at + type_size
                    at = body_at + body_size
                    part = new(PartIn, (body[name_at:type_at], body[type_at:body_at], body[body_at:at]))
                    head = (id, status, flags, body[phrase_at:meta_at], body[meta_at:name_at], [part])
                    answers.append(new(AnswerIn, head))
                    continue
            id, status, flags, _zero, part_count, phrase_size, meta_size = _ANSWER.unpack_from(body, at)
            heads_at = at + _ANSWER.size
            at = heads_at + _PART.size * part_count
            phrase = body[at : at + phrase_size]
            at += phrase_size
            meta = body[at : at + meta_size]
            at += meta_size
            parts, at = _decode_parts(body, heads_at, part_count, at)
            answers.append(AnswerIn(id, status, flags, phrase, meta, parts))
    except struct.error as error:
        raise RemoteProtocolError(f"An answer frame ends too early: {error}.") from error
    if at != size:
        raise RemoteProtocolError(f"An answer frame of {size} bytes holds answers of {at}.")
    return new(Result, (values[:6], metrics, answers))


class FrameReader:
    """Cuts a stream of bytes into frames; holds what is not whole yet.

    ``feed`` returns every frame that is complete, as ``(kind, flags, count, batch, body)``. The unread rest is
    kept in pieces and joined once a frame's length is reached, so that a frame of many megabytes costs one copy.
    """

    __slots__ = ("_need", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: List[bytes] = []
        self._size = 0
        self._need = HEAD_SIZE

    def feed(self, data: bytes) -> List[Tuple[int, int, int, int, bytes]]:
        """Return the frames that ``data`` completes.

        Raises:
            RemoteProtocolError: a frame is longer than ``MAX_FRAME``, or of no known kind.
        """
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        frames: List[Tuple[int, int, int, int, bytes]] = []
        at = 0
        size = len(data)
        while size - at >= HEAD_SIZE:
            length, kind, flags, count, batch = HEAD.unpack_from(data, at)
            end = at + HEAD_SIZE + length
            if end > size:
                if length > MAX_FRAME:
                    raise RemoteProtocolError(f"A frame of {length} bytes is announced; {MAX_FRAME} is the most.")
                if kind not in KINDS:  # garbage too: its length would be waited for, up to the most
                    raise RemoteProtocolError(f"A frame of kind number {kind} is announced, which there is not.")
                self._keep(data[at:] if at else data, HEAD_SIZE + length)
                return frames
            frames.append((kind, flags, count, batch, data[at + HEAD_SIZE : end]))
            at = end
        if at < size:
            self._keep(data[at:], HEAD_SIZE)
        return frames

    def _keep(self, rest: bytes, need: int) -> None:
        self._pieces = [rest]
        self._size = len(rest)
        self._need = need

    @property
    def is_empty(self) -> bool:
        """Whether no part of a frame is held: where a stream may end."""
        return not self._pieces


def encode_meta(fields: Sequence[bytes], headers: Sequence[bytes]) -> bytes:
    """Return a job's meta.

    Raises:
        LocalProtocolError: a field or a header holds a line feed.
    """
    lines = [*fields, *headers]
    meta = b"\n".join(lines)
    if meta.count(b"\n") != len(lines) - 1:
        raise LocalProtocolError("A line feed in a header or in a field of a job cannot cross the wire.")
    return meta


def decode_meta(meta: bytes) -> Tuple[List[bytes], List[bytes]]:
    """Return the fields of a job's meta and its headers, flat."""
    lines = meta.split(b"\n")
    return lines[: len(META_FIELDS)], lines[len(META_FIELDS) :]


def split_headers(meta: bytes) -> List[bytes]:
    """Return an answer's headers, flat: name, value, name, value."""
    return meta.split(b"\n") if meta else []


def text_parts(**texts: Optional[str]) -> List[Tuple[bytes, bytes, bytes]]:
    """Return named parts that hold text: how an error crosses the wire."""
    return [(name.encode(), b"text/plain", text.encode("utf-8", "replace")) for name, text in texts.items() if text]
