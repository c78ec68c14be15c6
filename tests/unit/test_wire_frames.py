"""Frames as values and as bytes: what is written is read, in whatever pieces, and what lies is refused."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marserve.errors import LocalProtocolError, RemoteProtocolError
from marserve.wire import frames

NAMES = st.binary(max_size=20)
BODIES = st.binary(max_size=200)
PLACED = st.builds(frames.Placed, st.integers(0, 2**40), st.integers(0, 2**40))
IDS = st.integers(0, 2**64 - 1)
PARTS = st.lists(st.tuples(NAMES, NAMES, st.one_of(BODIES, PLACED)), max_size=4)
JOBS = st.lists(st.tuples(IDS, st.integers(0, 2), BODIES, PARTS), max_size=4)


def batch_frame(jobs, number=7):
    pieces = []
    size = sum(frames.encode_job(pieces, id, kind, meta, parts) for id, kind, meta, parts in jobs)
    return frames.batch_head(size, len(jobs), number) + b"".join(pieces)


def result(answers, number=7, spans=(0.0,) * 6, metrics=b""):
    pieces = []
    size = sum(frames.encode_answer(pieces, *answer) for answer in answers)
    return b"".join(frames.result_frame(number, 0, spans, metrics, pieces, len(answers), size))


def as_read(parts):
    return [frames.PartIn(*part) for part in parts]


ONE_JOB = (5, frames.PREDICT, b"json\n/x\n\nHost\na", [(b"body", b"text/plain", b"hello")])
ONE_ANSWER = (5, 200, 0, b"OK", b"X-A\nb", b"text/plain", b"hello")


@given(JOBS)
def test_jobs_are_read_as_they_were_written(jobs):
    [(kind, _flags, count, number, body)] = frames.FrameReader().feed(batch_frame(jobs))

    assert (kind, count, number) == (frames.BATCH, len(jobs), 7)
    assert frames.decode_jobs(body, count) == [
        frames.JobIn(id, kind, meta, as_read(parts)) for id, kind, meta, parts in jobs
    ]


@given(st.lists(st.tuples(IDS, st.integers(0, 65535), NAMES, BODIES, NAMES, st.one_of(BODIES, PLACED)), max_size=4))
def test_answers_are_read_as_they_were_written(answers):
    frame = result([(id, status, 0, phrase, meta, kind, body) for id, status, phrase, meta, kind, body in answers])
    [(kind, _flags, count, _number, body)] = frames.FrameReader().feed(frame)

    read = frames.decode_result(body, count)

    assert kind == frames.ANSWER
    assert read.answers == [
        frames.AnswerIn(id, status, 0, phrase, meta, [frames.PartIn(b"", content_type, body)])
        for id, status, phrase, meta, content_type, body in answers
    ]


@pytest.mark.parametrize("body", [bytearray(b"abc"), memoryview(b"abc"), [b"a", b"", b"bc"], [b"abc"]])
def test_a_body_in_any_form_crosses_as_the_same_bytes(body):
    whole = batch_frame([(1, 0, b"meta", [(b"n", b"t", b"abc")])])

    assert batch_frame([(1, 0, b"meta", [(b"n", b"t", body)])]) == whole


def test_encoders_tell_how_many_bytes_they_appended():
    for parts in ([(b"n", b"t", b"abc")], [(b"n", b"t", [b"ab", b"c"])], [(b"a", b"", b"x"), (b"b", b"", b"yy")], []):
        out = []
        assert frames.encode_job(out, 1, 0, b"meta", parts) == len(b"".join(out))
    for body in (b"abc", memoryview(b"abc"), frames.Placed(4, 9)):
        out = []
        assert frames.encode_answer(out, 1, 200, 0, b"OK", b"m", b"t", body) == len(b"".join(out))


def test_spans_and_metrics_come_with_the_answers():
    spans = (0.5, 1.0, 0.25, 2.0, 0.125, 4.0)
    [(_kind, _flags, count, _number, body)] = frames.FrameReader().feed(result([ONE_ANSWER], 7, spans, b'{"a":1}\n'))

    read = frames.decode_result(body, count)

    assert (read.spans, read.metrics, len(read.answers)) == (spans, b'{"a":1}\n', 1)


def test_an_error_crosses_as_its_kind_and_texts():
    parts = frames.text_parts(message="Kaputt ü", hint=None, traceback="")
    pieces = []
    size = frames.encode_answer_parts(pieces, 3, 0, frames.ERROR, b"HandlerFault", b"", parts)
    frame = b"".join(frames.result_frame(1, 0, (0.0,) * 6, b"", pieces, 1, size))

    [(_kind, _flags, count, _number, body)] = frames.FrameReader().feed(frame)
    [answer] = frames.decode_result(body, count).answers

    assert (answer.flags, answer.phrase) == (frames.ERROR, b"HandlerFault")
    assert answer.parts == [frames.PartIn(b"message", b"text/plain", "Kaputt ü".encode())]


# Streams of bytes


STREAM = [
    frames.encode_message(frames.HELLO, {"token": "t"}),
    batch_frame([ONE_JOB, ONE_JOB]),
    frames.encode_message(frames.STOP, {}),
    result([ONE_ANSWER]),
]


def test_frames_cut_at_every_byte_come_out_whole():
    data = b"".join(STREAM)
    whole = frames.FrameReader().feed(data)
    assert len(whole) == len(STREAM)

    for cut in range(len(data) + 1):
        reader = frames.FrameReader()
        assert reader.feed(data[:cut]) + reader.feed(data[cut:]) == whole
        assert reader.is_empty


def test_frames_that_come_byte_by_byte_come_out_whole():
    data = b"".join(STREAM)
    reader = frames.FrameReader()

    found = [frame for at in range(len(data)) for frame in reader.feed(data[at : at + 1])]

    assert found == frames.FrameReader().feed(data)


@given(st.lists(st.integers(0, 400), max_size=30))
def test_frames_in_any_pieces_come_out_whole(cuts):
    data = b"".join(STREAM)
    reader = frames.FrameReader()
    found = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    for start, end in pairwise(edges):
        found += reader.feed(data[start:end])

    assert found == frames.FrameReader().feed(data)


def test_a_large_frame_in_many_pieces_comes_out_whole_with_what_follows():
    body = bytes(range(256)) * 20_000  # 5 MB
    data = batch_frame([(1, 0, b"", [(b"body", b"", body)])]) + STREAM[0]
    reader = frames.FrameReader()

    found = [frame for at in range(0, len(data), 65_536) for frame in reader.feed(data[at : at + 65_536])]

    assert [frame[0] for frame in found] == [frames.BATCH, frames.HELLO]
    assert frames.decode_jobs(found[0][4], 1)[0].parts[0].body == body


def test_a_reader_knows_whether_a_stream_may_end_here():
    reader = frames.FrameReader()
    assert reader.is_empty
    reader.feed(STREAM[0][:5])
    assert not reader.is_empty
    reader.feed(STREAM[0][5:])
    assert reader.is_empty


def test_a_length_beyond_the_most_is_taken_for_garbage_not_waited_for():
    with pytest.raises(RemoteProtocolError, match=str(frames.MAX_FRAME)):
        frames.FrameReader().feed(frames.HEAD.pack(frames.MAX_FRAME + 1, frames.BATCH, 0, 1, 1))


def test_a_frame_of_no_known_kind_is_not_waited_for():
    with pytest.raises(RemoteProtocolError, match="kind number 99"):
        frames.FrameReader().feed(frames.HEAD.pack(1000, 99, 0, 1, 1))


# Lies


def bodies():
    [(_k, _f, count, _n, batch)] = frames.FrameReader().feed(batch_frame([ONE_JOB, ONE_JOB]))
    [(_k, _f, answered, _n, answer)] = frames.FrameReader().feed(result([ONE_ANSWER, ONE_ANSWER], metrics=b"{}"))
    return [(frames.decode_jobs, batch, count), (frames.decode_result, answer, answered)]


@pytest.mark.parametrize(("decode", "body", "count"), bodies(), ids=["batch", "answer"])
def test_a_body_that_ends_too_early_or_late_is_refused(decode, body, count):
    assert decode(body, count)
    for end in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            decode(body[:end], count)
    with pytest.raises(RemoteProtocolError):
        decode(body + b"x", count)


@pytest.mark.parametrize(("decode", "body", "count"), bodies(), ids=["batch", "answer"])
@pytest.mark.parametrize("said", [0, 1, 3, 65535])
def test_a_count_that_is_not_so_is_refused(decode, body, count, said):
    with pytest.raises(RemoteProtocolError):
        decode(body, said)


@given(st.binary(max_size=300), st.integers(0, 5))
def test_garbage_is_refused_or_read_but_never_breaks_the_reader(body, count):
    for decode in (frames.decode_jobs, frames.decode_result):
        try:
            decode(body, count)
        except RemoteProtocolError:
            continue


def test_a_part_in_a_place_that_there_is_not_is_refused():
    [(_k, _f, _c, _n, body)] = frames.FrameReader().feed(batch_frame([ONE_JOB]))
    lying = bytearray(body)
    struct.pack_into("<I", lying, 20 + 4, 7)

    with pytest.raises(RemoteProtocolError, match="place 7"):
        frames.decode_jobs(bytes(lying), 1)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b"null", b"[" * 100_000])
def test_a_control_frame_without_a_json_object_is_refused(body):
    with pytest.raises(RemoteProtocolError):
        frames.decode_message(body)


# Metas and headers


def test_meta_keeps_fields_and_headers_in_their_letter_case():
    meta = frames.encode_meta([b"json", b"/path", b""], [b"X-Odd-CASE", b"1", b"x-odd-case", b""])

    assert frames.decode_meta(meta) == ([b"json", b"/path", b""], [b"X-Odd-CASE", b"1", b"x-odd-case", b""])


def test_a_line_feed_in_a_header_cannot_become_another_header():
    with pytest.raises(LocalProtocolError, match="line feed"):
        frames.encode_meta([b"", b"", b""], [b"X-A", b"1\nX-B"])


def test_headers_of_an_answer_cross_flat():
    assert frames.split_headers(b"X-\xc4\n1\nx-empty\n") == ["X-Ä".encode("latin-1"), b"1", b"x-empty", b""]
    assert frames.split_headers(b"") == []


def test_the_time_that_is_left_crosses_the_wire():
    pieces = []
    size = frames.encode_job(pieces, 1, frames.PREDICT, b"\n\n", [(b"body", b"", b"x")], 1.5)
    size += frames.encode_job(pieces, 2, frames.PREDICT, b"\n\n", [(b"a", b"", b"x"), (b"b", b"", b"y")], 0.25)
    size += frames.encode_job(pieces, 3, frames.PREDICT, b"\n\n", [(b"body", b"", b"x")])

    jobs = frames.decode_jobs(b"".join(pieces), 3)

    assert [job.seconds_left for job in jobs] == [1.5, 0.25, float("inf")]
