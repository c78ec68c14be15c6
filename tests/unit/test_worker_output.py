"""What a rank prints has its number before each line, however it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import TextIOWrapper

import pytest

from marserve.worker.output import prefixed

Pipe = tuple[TextIOWrapper, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a stream with a prefix and the descriptor to read from."""
    reading, writing = os.pipe()
    stream = prefixed(writing, "[rank 1] ")
    yield stream, reading
    stream.close()
    os.close(reading)
    os.close(writing)


def test_every_line_is_prefixed_once(pipe: Pipe) -> None:
    stream, reading = pipe
    print("one", 1, file=stream)
    print("two\nthree", file=stream)
    print("fo", end="", flush=True, file=stream)
    print("ur", file=stream)
    assert os.read(reading, 999) == b"[rank 1] one 1\n[rank 1] two\n[rank 1] three\n[rank 1] four\n"


def test_a_line_leaves_in_one_piece(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        pieces.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    print("a", "line", "of", "words", file=pipe[0])
    assert pieces == [b"[rank 1] a line of words\n"]


def test_what_the_system_takes_in_part_is_written_whole(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()

    def write(descriptor: int, data: bytes) -> int:
        written.extend(data[:3])
        return len(data[:3])

    monkeypatch.setattr(os, "write", write)
    print("a line", file=pipe[0])
    assert written == b"[rank 1] a line\n"


def test_bytes_odd_characters_and_the_descriptor_pass(pipe: Pipe) -> None:
    stream, reading = pipe
    stream.buffer.write(b"raw\n")
    print("not a character: \udcff", file=stream)
    assert os.fstat(stream.fileno())
    assert os.read(reading, 999) == b"[rank 1] raw\n[rank 1] not a character: \\udcff\n"
