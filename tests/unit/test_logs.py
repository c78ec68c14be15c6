"""The log's lines, where they go, and that a second set-up replaces the first."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from marserve import logs

MOMENT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, root.level = handlers, level


def write(level: int, message: str, error: BaseException | None = None) -> None:
    record = logging.LogRecord("marserve.pool", level, "file.py", 1, message, (), None)
    if error is not None:
        record.exc_info = (type(error), error, None)
    record.created = MOMENT.timestamp()
    logger = logging.getLogger("marserve.pool")
    if logger.isEnabledFor(level):
        logger.handle(record)


def test_a_line_of_text() -> None:
    stream = io.StringIO()
    logs.configure("info", stream=stream)
    write(logging.WARNING, "a worker died")
    moment, _, rest = stream.getvalue().partition(" ")
    assert datetime.fromisoformat(moment) == MOMENT.replace(microsecond=123000)
    assert moment[19:23] == ".123"
    assert rest == "WARNING marserve.pool: a worker died\n"


def test_a_line_of_json_with_a_traceback() -> None:
    stream = io.StringIO()
    logs.configure("info", stream=stream, log_format="json")
    write(logging.ERROR, 'two\nlines "ü"', ValueError("no"))
    assert stream.getvalue().count("\n") == 1
    line = json.loads(stream.getvalue())
    assert datetime.fromisoformat(line.pop("time")) == MOMENT.replace(microsecond=123000)
    assert line == {
        "level": "error",
        "logger": "marserve.pool",
        "message": 'two\nlines "ü"',
        "exception": "ValueError: no",
    }


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    logs.configure("warning", stream=stream)
    write(logging.INFO, "quiet")
    write(logging.WARNING, "loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_a_folder_gets_the_lines_too(tmp_path: Path) -> None:
    stream = io.StringIO()
    logs.configure("info", tmp_path / "new" / "logs", stream)
    write(logging.INFO, "hello ü")
    text = (tmp_path / "new" / "logs" / logs.FILE_NAME).read_text(encoding="utf-8")
    assert text == stream.getvalue()
    assert text.endswith("INFO    marserve.pool: hello ü\n")


def test_a_second_set_up_replaces_the_first_and_leaves_others_alone() -> None:
    first, second, other = io.StringIO(), io.StringIO(), logging.NullHandler()
    logging.getLogger().addHandler(other)
    logs.configure(stream=first)
    logs.configure(stream=second)
    write(logging.INFO, "once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert other in logging.getLogger().handlers


def test_the_default_stream_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    write(logging.INFO, "hello")
    captured = capsys.readouterr()
    assert "hello" in captured.err
    assert captured.out == ""
