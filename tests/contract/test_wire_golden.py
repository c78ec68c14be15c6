"""The bytes of the wire, as they are: a change here is a change of ``WIRE_VERSION``, because workers may be older."""

from __future__ import annotations

from pathlib import Path

import pytest

from marserve.wire import frames, page

GOLDEN = Path(__file__).parent / "wire"


def batch():
    pieces = []
    size = frames.encode_job(
        pieces, 0x0102030405060708, frames.PREDICT, b"json\n/x\n\nHost\na", [(b"body", b"text/plain", b"hello")]
    )
    parts = [(b"a", b"", [b"in ", b"pieces"]), (b"b", b"image/png", frames.Placed(4096, 300_000))]
    size += frames.encode_job(pieces, 2, frames.EXPLAIN, b"\n\n", parts)
    return frames.batch_head(size, 2, 7) + b"".join(pieces)


def answer():
    pieces = []
    size = frames.encode_answer(pieces, 1, 200, 0, b"OK", b"X-A\nb", b"application/json", b"[1]")
    size += frames.encode_answer(pieces, 2, 200, 0, b"", b"", b"", frames.Placed(0, 262_144))
    texts = frames.text_parts(message="No.", hint="Do.", traceback="Traceback")
    size += frames.encode_answer_parts(pieces, 3, 503, frames.ERROR, b"OutOfMemory", b"", texts)
    spans = (0.5, 0.25, 0.125, 1.0, 2.0, 4.0)
    return b"".join(frames.result_frame(7, frames.LAST, spans, b'{"name":"m"}\n', pieces, 3, size))


FRAMES = {
    "hello": lambda: frames.encode_message(frames.HELLO, {"version": 1, "token": "t"}),
    "welcome": lambda: frames.encode_message(frames.WELCOME, {"version": 1, "link": 3, "arena_bytes": 65536}),
    "loaded": lambda: frames.encode_message(frames.LOADED, {"ok": True}),
    "stop": lambda: frames.encode_message(frames.STOP, {}),
    "batch": batch,
    "answer": answer,
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_has_these_bytes(name):
    golden = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())

    assert FRAMES[name]().hex(" ", 8) == golden.hex(" ", 8)


def test_there_is_no_golden_file_without_its_frame():
    assert {path.stem for path in GOLDEN.glob("*.hex")} == set(FRAMES)


def test_the_numbers_of_the_wire_stay():
    assert frames.WIRE_VERSION == 1
    assert {number: frames.KINDS[number] for number in sorted(frames.KINDS)} == {
        1: "hello",
        2: "welcome",
        3: "load",
        4: "loaded",
        5: "batch",
        6: "answer",
        7: "stop",
        8: "fork",
        9: "forked",
        10: "serve",
        16: "cancel",
        17: "credit",
        18: "log",
        19: "metric",
    }
    assert (frames.MORE, frames.LAST, frames.ERROR, frames.RETURNED) == (1, 2, 4, 8)
    assert (frames.PREDICT, frames.EXPLAIN, frames.DESCRIBE) == (0, 1, 2)
    assert (frames.INLINE, frames.ARENA) == (0, 1)
    assert frames.SPANS == ("wait", "decode", "preprocess", "inference", "postprocess", "encode")
    assert frames.META_FIELDS == ("envelope", "url_path", "trace")


def test_the_words_of_the_page_stay():
    words = ("STARTED", "FINISHED", "STEP", "SINCE", "TAKEN_BACK", "CANCEL", "CONSUMED", "POLL_MICROSECONDS", "SENT")
    assert [getattr(page, word) for word in words] == [0, 16, 1, 2, 32, 33, 34, 35, 48]
    assert page.PAGE_SIZE == 4096
