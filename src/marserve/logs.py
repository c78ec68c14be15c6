"""Logging set-up of every process: one format, as text for people or as JSON lines for machines.

The server writes to standard error and, where told, to a folder; workers write to standard error alone, which
their supervisor reads. In the dialects of the two old servers the server writes to standard output and to their five
files, in the format of their log4j. This file runs in workers too: standard library only, valid Python 3.8.
"""

import json
import logging
import os
import sys
import time
from datetime import datetime, timedelta
from logging.handlers import BaseRotatingHandler, WatchedFileHandler
from pathlib import Path
from typing import Dict, List, Optional, Sequence, TextIO, Tuple, Union

#: Name of the log in the folder that ``log_location`` names.
FILE_NAME = "marserve.log"

#: Loggers whose records hold many lines each, which are gathered because one call a line costs too much: access
#: lines, and the old servers' metrics of the server and of services.
ACCESS = "marserve.access"
SERVER_METRICS = "marserve.server_metrics"
MODEL_METRICS = "marserve.model_metrics"
#: Logger of what workers print; ``worker`` of a record is the worker's name, its arguments end with the line.
OUTPUT = "marserve.output"
_GATHERED = (ACCESS, SERVER_METRICS, MODEL_METRICS)

#: Size at which an old server's file is put aside, bytes; it is put aside at midnight too.
LARGEST_FILE = 100 * 1024 * 1024
#: Files put aside that are kept, of each.
KEPT_FILES = 5

#: The old servers' own names of loggers.
_OLD_NAMES = {ACCESS: "ACCESS_LOG", MODEL_METRICS: "MODEL_METRICS", OUTPUT: "MODEL_LOG"}
_OLD_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
#: Marks the handlers that are set here, so that a second call replaces them and nobody else's.
_MARK = "marserve"

Place = Union[str, "os.PathLike[str]"]
#: Lines that begin alike: what they begin with, and what follows in each.
Run = Tuple[str, List[str]]


def configure(
    level: str = "info",
    location: Optional[Place] = None,
    stream: Optional[TextIO] = None,
    log_format: str = "text",
) -> None:
    """Set where this process's log goes; a second call replaces the first.

    Args:
        level: least level that is written: debug, info, warning or error.
        location: folder that gets a ``marserve.log`` beside the stream, made if need be; None or "" for none.
            The file may be moved away while it is written (logrotate): a new one is begun.
        stream: where lines go; None for standard error.
        log_format: ``text``, ``json`` for one JSON object a line, or ``bare`` for messages alone.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    handlers: List[logging.Handler] = [logging.StreamHandler(sys.stderr if stream is None else stream)]
    if location:
        os.makedirs(location, exist_ok=True)
        handlers.append(WatchedFileHandler(os.path.join(location, FILE_NAME), encoding="utf-8"))
    _remove_handlers()
    formatter = {"json": _JsonFormatter(), "bare": logging.Formatter("%(message)s")}.get(log_format)
    formatter = formatter or _TextFormatter(_TEXT)
    for handler in handlers:
        _add(logging.getLogger(), handler, formatter)
    logging.getLogger().setLevel(level.upper())


def configure_old(
    server: str,
    level: str = "info",
    location: Optional[Place] = None,
    metrics_location: Optional[Place] = None,
    stream: Optional[TextIO] = None,
    log_format: str = "text",
) -> None:
    """Set the log as an old server has it: all of it to the stream, and each kind to its file.

    A file that cannot be written is told in the log and done without: in a container the folder may be read-only.

    Args:
        server: ``ts`` or ``mms``; the files ``<server>_log.log`` and ``<server>_metrics.log`` are named after it.
        level: least level of the stream and of the server's own log; the other files get all there is.
        location: folder of the access log, the server's own, which has what workers print too, and what workers
            print; None for none.
        metrics_location: folder of the two logs of metrics; None for none.
        stream: where lines go; None for standard output.
        log_format: ``text``, or ``json`` for one JSON object a line.
    """
    _remove_handlers()
    root = logging.getLogger()
    whole, plain = (_JsonFormatter(),) * 2 if log_format == "json" else (_OldFormatter(server), _BareFormatter())
    console = logging.StreamHandler(sys.stdout if stream is None else stream)
    console.addFilter(_Level(level))
    _add(root, console, whole)
    root.setLevel(level.upper())
    failures = []
    for name, folder, file, formatter in (
        ("", location, f"{server}_log.log", whole),
        (ACCESS, location, "access_log.log", plain),
        (OUTPUT, location, "model_log.log", whole),
        (SERVER_METRICS, metrics_location, f"{server}_metrics.log", plain),
        (MODEL_METRICS, metrics_location, "model_metrics.log", plain),
    ):
        logger = logging.getLogger(name)
        if name:
            logger.setLevel(logging.INFO if name in _GATHERED else logging.DEBUG)
        if not folder:
            continue
        path = Path(folder, file)
        try:
            os.makedirs(folder, exist_ok=True)
            handler = RollingFile(path)
        except OSError as error:
            failures.append(f"{path} cannot be written ({error.strerror}), and is done without.")
            continue
        if not name:
            handler.addFilter(_Level(level, never=_GATHERED))
        _add(logger, handler, formatter)
    for sentence in failures:
        logging.getLogger("marserve.logs").warning("%s", sentence)


def _remove_handlers() -> None:
    for name in ("", *_GATHERED, OUTPUT):
        logger = logging.getLogger(name)
        for old in [handler for handler in logger.handlers if handler.name == _MARK]:
            logger.removeHandler(old)
            old.close()


def _add(logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.name = _MARK
    handler.setFormatter(formatter)
    logger.addHandler(handler)


class _Level(logging.Filter):
    """Lets through what is worth a line: what workers print has been chosen by them.

    Args:
        level: least level of everything else.
        never: loggers whose records are kept out.
    """

    def __init__(self, level: str, never: Sequence[str] = ()) -> None:
        super().__init__()
        self._level = int(logging.getLevelName(level.upper()))
        self._never = never

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is written."""
        return record.name not in self._never and (record.levelno >= self._level or record.name == OUTPUT)


class RollingFile(BaseRotatingHandler):
    """A file that is put aside when it is large and at midnight, under its name and the moment; the newest are kept.

    Args:
        path: the file.
        largest: size at which it is put aside, bytes.
    """

    def __init__(self, path: Path, largest: int = LARGEST_FILE) -> None:
        super().__init__(str(path), "a", encoding="utf-8")
        self._path = Path(self.baseFilename)
        self._largest = largest
        # What another day has left is put aside with the first line.
        self._midnight = _midnight_after(self._path.stat().st_mtime)

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802
        """See the library."""
        return record.created >= self._midnight or (self.stream is not None and self.stream.tell() >= self._largest)

    def doRollover(self) -> None:  # noqa: N802
        """See the library."""
        if self.stream is not None:
            self.stream.close()
        path = self._path
        moment = datetime.now().strftime("%Y-%m-%dT%H%M%S.%f")
        try:
            if path.stat().st_size:
                path.rename(path.with_name(f"{path.stem}.{moment}{path.suffix}"))
            for old in sorted(path.parent.glob(f"{path.stem}.*T*{path.suffix}"))[:-KEPT_FILES]:
                old.unlink()
        except OSError:
            pass  # the folder has become read-only: the file goes on
        self._midnight = _midnight_after(time.time())
        self.stream = self._open()


def _midnight_after(moment: float) -> float:
    day = datetime.fromtimestamp(moment) + timedelta(days=1)
    return day.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def _moment(record: logging.LogRecord) -> str:
    """Return when the event was, in ISO form with milliseconds and the offset from UTC."""
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _old_moment(record: logging.LogRecord) -> str:
    """Return when the event was as log4j's ISO8601: local time, a comma before the milliseconds."""
    return datetime.fromtimestamp(record.created).isoformat(timespec="milliseconds").replace(".", ",")


class Lines:
    """The message of a record that gathers many lines: put together once, by whoever writes them."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs

    def after(self, prefix: str) -> str:
        """Return the lines, each after ``prefix``; without the end of the last."""
        return "\n".join([(head := prefix + stem) + f"\n{head}".join(ends) for stem, ends in self._runs])

    def __str__(self) -> str:
        return self.after("")


def _after(prefix: str, record: logging.LogRecord) -> str:
    """Return the lines that a record gathers, each after ``prefix``; without the end of the last."""
    if isinstance(record.msg, Lines):
        return record.msg.after(prefix)
    return prefix + record.getMessage().replace("\n", f"\n{prefix}")


def _gathered(record: logging.LogRecord) -> List[str]:
    """Return the lines of a record that gathers many; of any other record its message."""
    message = record.getMessage()
    return message.split("\n") if record.name in _GATHERED else [message]


class _TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123+00:00 WARNING marserve.supervisor: a worker died``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; one for each of those that the record gathers."""
        if record.name not in _GATHERED:
            return super().format(record)
        return _after(f"{_moment(record)} {record.levelname:7} {record.name}: ", record)

    def formatTime(self, record: logging.LogRecord, datefmt: Optional[str] = None) -> str:  # noqa: N802
        """Return the moment of the event, not of the writing."""
        return _moment(record)


class _BareFormatter(logging.Formatter):
    """``2026-01-31T12:00:00,123 - /192.0.2.7:4242 "GET /ping HTTP/1.1" 200 3``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines that the record gathers, without the end of the last."""
        return _after(f"{_old_moment(record)} - ", record)


class _OldFormatter(logging.Formatter):
    """``2026-01-31T12:00:00,123 [INFO ] W-9000-m_1.0-stdout MODEL_LOG - what a worker printed``."""

    def __init__(self, server: str) -> None:
        super().__init__()
        self._names = {**_OLD_NAMES, SERVER_METRICS: f"{server.upper()}_METRICS"}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; one for each of those that the record gathers."""
        thread, message = record.threadName, ""
        worker = getattr(record, "worker", None)
        if worker is not None and isinstance(record.args, tuple):
            thread, message = old_thread(worker), str(record.args[-1])
        elif record.name not in _GATHERED:
            message = record.getMessage()
        level = _OLD_LEVELS.get(record.levelname, record.levelname)
        name = self._names.get(record.name, record.name)
        prefix = f"{_old_moment(record)} [{level:5}] {thread} {name} - "
        if record.name in _GATHERED:
            return _after(prefix, record)
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{prefix}{message}{trace}"


def old_worker(name: str, number: object) -> str:
    """Return a worker's name ``m:1.0#9000`` as the old servers write it: ``W-9000-m_1.0``."""
    model, _, version = name.rpartition("#")[0].rpartition(":")
    return f"W-{number}-{model}_{version}"


def old_thread(name: str) -> str:
    """Return the thread that read a worker's lines in the old servers."""
    return f"{old_worker(name, name.rpartition('#')[2])}-stdout"


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; one for each of those that the record gathers."""
        return "\n".join(self._line(record, message) for message in _gathered(record))

    def _line(self, record: logging.LogRecord, message: str) -> str:
        line: Dict[str, str] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
