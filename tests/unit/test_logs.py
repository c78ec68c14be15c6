"""The log's lines, where they go, and that a second set-up replaces the first."""

import io
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from marserve import logs
from marserve.server import worker_log

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


def test_what_workers_print_is_told_whatever_the_level() -> None:
    stream = io.StringIO()
    logs.configure("error", stream=stream)
    worker_log.info("ValueError: oh no")
    write(logging.INFO, "nobody wants to know")
    assert stream.getvalue().endswith("ValueError: oh no\n")


# --- the old servers' files ------------------------------------------------------------------------------


@pytest.fixture
def old_loggers() -> Iterator[None]:
    """Leave no level and no file behind at the loggers that have files of their own."""
    names = (logs.ACCESS, logs.SERVER_METRICS, logs.MODEL_METRICS, logs.OUTPUT)
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    logs.configure(stream=io.StringIO())
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("log_format", ["text", "json", "bare"])
def test_lines_that_begin_alike_are_written_as_lines_of_their_own(log_format: str, old_loggers: None) -> None:
    stream = io.StringIO()
    logs.configure("info", stream=stream, log_format=log_format)

    logging.getLogger(logs.ACCESS).info(logs.Lines([("alike ", ["1", "2"]), ("", ["whole"])]))

    lines = stream.getvalue().splitlines()
    texts = [json.loads(line)["message"] for line in lines] if log_format == "json" else lines
    ends = ["alike 1", "alike 2", "whole"]
    assert [text.endswith(end) for text, end in zip(texts, ends, strict=True)] == [True] * 3
    if log_format == "text":
        assert len({text.removesuffix(end) for text, end in zip(texts, ends, strict=True)}) == 1


MOMENT_OLD = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"


def write_each() -> None:
    """Write a line of each kind."""
    logging.getLogger("marserve.server").warning("of the server")
    logging.getLogger(logs.ACCESS).info(logs.Lines([("access ", ["1", "2"])]))
    logging.getLogger(logs.SERVER_METRICS).info("%s", "metric 1\nmetric 2")
    logging.getLogger(logs.MODEL_METRICS).info("%s", "model metric")
    logging.getLogger(logs.OUTPUT).info("[%s] %s", "m:1.0#9000", "printed", extra={"worker": "m:1.0#9000"})


@pytest.mark.parametrize("server", ["ts", "mms"])
def test_each_kind_of_line_has_its_file_of_the_old_servers(tmp_path: Path, old_loggers: None, server: str) -> None:
    stream = io.StringIO()
    logs.configure_old(server, "warning", tmp_path / "logs", tmp_path / "metrics", stream)
    write_each()

    def lines(folder: str, name: str) -> list[str]:
        return (tmp_path / folder / name).read_text().splitlines()

    bare = rf"{MOMENT_OLD} - "
    for found, wanted in (
        (lines("logs", "access_log.log"), [rf"{bare}access 1", rf"{bare}access 2"]),
        (lines("metrics", f"{server}_metrics.log"), [rf"{bare}metric 1", rf"{bare}metric 2"]),
        (lines("metrics", "model_metrics.log"), [rf"{bare}model metric"]),
        (lines("logs", "model_log.log"), [rf"{MOMENT_OLD} \[INFO \] W-9000-m_1\.0-stdout MODEL_LOG - printed"]),
        (
            lines("logs", f"{server}_log.log"),
            [
                rf"{MOMENT_OLD} \[WARN \] MainThread marserve\.server - of the server",
                rf"{MOMENT_OLD} \[INFO \] W-9000-m_1\.0-stdout MODEL_LOG - printed",
            ],
        ),
    ):
        assert len(found) == len(wanted)
        assert all(re.fullmatch(pattern, line) for pattern, line in zip(wanted, found, strict=True)), found
    assert [line.split(" - ")[1] for line in stream.getvalue().splitlines()] == ["of the server", "printed"]


def test_the_console_of_an_old_server_has_everything_under_the_old_names(old_loggers: None) -> None:
    stream = io.StringIO()
    logs.configure_old("ts", stream=stream)
    write_each()

    assert stream.getvalue().count("ACCESS_LOG - access") == 2
    assert stream.getvalue().count("TS_METRICS - metric") == 2
    assert stream.getvalue().count("MODEL_METRICS - model metric") == 1


def test_a_folder_that_cannot_be_written_is_told_and_done_without(tmp_path: Path, old_loggers: None) -> None:
    (tmp_path / "file").write_text("in the way")
    stream = io.StringIO()
    logs.configure_old("ts", "info", tmp_path / "file" / "logs", tmp_path / "metrics", stream)
    write_each()

    assert "access_log.log cannot be written (Not a directory), and is done without." in stream.getvalue()
    assert (tmp_path / "metrics" / "ts_metrics.log").read_text()
    assert "of the server" in stream.getvalue()


def record_at(moment: float) -> logging.LogRecord:
    record = logging.LogRecord("x", logging.INFO, "file.py", 1, "%s", ("0123456789",), None)
    record.created = moment
    return record


def test_a_large_file_is_put_aside_and_the_newest_are_kept(tmp_path: Path) -> None:
    handler = logs.RollingFile(tmp_path / "a.log", largest=20)
    for _ in range(20):
        handler.handle(record_at(time.time()))
    handler.close()

    aside = sorted(tmp_path.glob("a.*T*.log"))

    assert len(aside) == logs.KEPT_FILES
    assert all(path.read_text() == "0123456789\n" * 2 for path in aside)
    assert (tmp_path / "a.log").read_text() == "0123456789\n" * 2


def test_a_file_of_another_day_is_put_aside_with_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("yesterday\n")
    yesterday = time.time() - 24 * 3600
    os.utime(tmp_path / "a.log", (yesterday, yesterday))

    handler = logs.RollingFile(tmp_path / "a.log")
    handler.handle(record_at(time.time()))
    handler.close()

    (aside,) = tmp_path.glob("a.*T*.log")
    assert aside.read_text() == "yesterday\n"
    assert (tmp_path / "a.log").read_text() == "0123456789\n"


def test_json_lines_are_json_in_the_files_too(tmp_path: Path, old_loggers: None) -> None:
    logs.configure_old("ts", "info", tmp_path, tmp_path, io.StringIO(), "json")
    write_each()

    lines = (tmp_path / "access_log.log").read_text().splitlines()

    assert [json.loads(line)["message"] for line in lines] == ["access 1", "access 2"]
