"""Logging set-up of every process: one format, as text for people or as JSON lines for machines.

The server writes to standard error and, where told, to a folder; workers write to standard error alone, which
their supervisor reads. This file runs in workers too: standard library only, valid Python 3.8.
"""

import json
import logging
import os
import sys
from datetime import datetime
from logging.handlers import WatchedFileHandler
from typing import Dict, List, Optional, TextIO, Union

#: Name of the log in the folder that ``log_location`` names.
FILE_NAME = "marserve.log"

#: Logger of the access lines, whose records hold many lines: they are gathered, because one call each costs too much.
ACCESS = "marserve.access"

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
#: Marks the handlers that ``configure`` set, so that a second call replaces them and nobody else's.
_MARK = "marserve"


def configure(
    level: str = "info",
    location: Optional[Union[str, "os.PathLike[str]"]] = None,
    stream: Optional[TextIO] = None,
    log_format: str = "text",
) -> None:
    """Set where this process's log goes; a second call replaces the first.

    Args:
        level: least level that is written: debug, info, warning or error.
        location: folder that gets a ``marserve.log`` beside the stream, made if need be; None or "" for none.
            The file may be moved away while it is written (logrotate): a new one is begun.
        stream: where lines go; None for standard error.
        log_format: ``text``, or ``json`` for one JSON object a line.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    handlers: List[logging.Handler] = [logging.StreamHandler(sys.stderr if stream is None else stream)]
    if location:
        os.makedirs(location, exist_ok=True)
        handlers.append(WatchedFileHandler(os.path.join(location, FILE_NAME), encoding="utf-8"))
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if handler.name == _MARK]:
        root.removeHandler(old)
        old.close()
    formatter = _JsonFormatter() if log_format == "json" else _TextFormatter(_TEXT)
    for handler in handlers:
        handler.name = _MARK
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(level.upper())


def _moment(record: logging.LogRecord) -> str:
    """Return when the event was, in ISO form with milliseconds and the offset from UTC."""
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _gathered(record: logging.LogRecord) -> List[str]:
    """Return the requests that an access record tells about, one a line; of any other record its message."""
    message = record.getMessage()
    return message.split("\n") if record.name == ACCESS else [message]


class _TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123+00:00 WARNING marserve.supervisor: a worker died``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; one for each of the requests that an access record gathers."""
        lines = _gathered(record)
        if len(lines) == 1:
            return super().format(record)
        prefix = f"{_moment(record)} {record.levelname:7} {record.name}: "
        return prefix + f"\n{prefix}".join(lines)

    def formatTime(self, record: logging.LogRecord, datefmt: Optional[str] = None) -> str:  # noqa: N802
        """Return the moment of the event, not of the writing."""
        return _moment(record)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; one for each of the requests that an access record gathers."""
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
