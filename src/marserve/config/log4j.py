"""What a log4j2 file says that has a counterpart here: a level, and the folders of the log's files.

Source: log4j2's XML form, and the files that TorchServe 0.12 and Multi Model Server 1.1 ship, from which their users'
own are made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

#: log4j's levels as ours.
_LEVELS = {
    "all": "debug",
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "fatal": "error",
    "off": "error",
}
#: The logger of each server's own code, by the name that its files begin with.
_SERVERS = {"ts": "org.pytorch.serve", "mms": "com.amazonaws.ml.mms"}
#: Levels that the shipped file gives to those whose level is nothing to choose here; to Java's libraries too.
_SHIPPED_LEVELS = {
    "ACCESS_LOG": "info",
    "MODEL_LOG": "all",
    "MODEL_METRICS": "all",
    "io.netty": "error",
    "org.apache": "off",
}
_APPENDERS = ("console", "file", "rollingfile", "randomaccessfile", "rollingrandomaccessfile")
#: What the shipped file's appenders hold, each with its attributes: it is so here as well.
_SHIPPED_PARTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("patternlayout", {"pattern": "%d{ISO8601} - %m%n"}),
    ("patternlayout", {"pattern": "%d{ISO8601} [%-5p] %t %c - %m%n"}),
    ("policies", {}),
    ("sizebasedtriggeringpolicy", {"size": "100 MB"}),
    ("timebasedtriggeringpolicy", {}),
    ("defaultrolloverstrategy", {"max": "5"}),
)
#: ``${name}``, ``${env:NAME}`` and ``${env:NAME:-default}``.
_LOOKUP = re.compile(r"\$\{(env:)?([^${}:]+)(?::-([^${}]*))?\}")
#: Lookups inside each other that are followed.
_DEEPEST = 8


class Mapped(NamedTuple):
    """Settings in place of a file, by key, and what of it has no effect, a phrase each."""

    settings: dict[str, str]
    ignored: list[str]


def read_log4j(path: Path, environ: Mapping[str, str], server: str = "ts") -> Mapped:
    """Return what an existing file comes to; one that is no XML comes to nothing, as in the originals.

    Args:
        server: the old server that it was written for: ``ts`` or ``mms``.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        return Mapped({}, [f"the file, which is no XML ({error}),"])
    return _Reading(root, environ, server).read()


class _Reading:
    """One run of ``read_log4j``."""

    def __init__(self, root: Element, environ: Mapping[str, str], server: str) -> None:
        self._environ = environ
        self._server = _SERVERS[server]
        #: Loggers whose files there are here too, "" being the root: setting of their folder, and the file's name.
        self._files = {
            "": ("log_location", f"{server}_log.log"),
            self._server: ("log_location", f"{server}_log.log"),
            "ACCESS_LOG": ("log_location", "access_log.log"),
            "MODEL_LOG": ("log_location", "model_log.log"),
            f"{server.upper()}_METRICS": ("metrics_location", f"{server}_metrics.log"),
            "MODEL_METRICS": ("metrics_location", "model_metrics.log"),
        }
        self._shipped_levels = {**_SHIPPED_LEVELS, f"{server.upper()}_METRICS": "all"}
        self._sections = {_tag(child): child for child in root}
        self._appenders = {child.get("name", ""): child for child in self._of("appenders")}
        self._properties = {
            child.get("name", ""): child.get("value") or child.text or "" for child in self._of("properties")
        }
        self._settings: dict[str, str] = {}

    def read(self) -> Mapped:
        """Return what the file comes to."""
        loggers = {child.get("name", ""): child for child in self._of("loggers")}
        ignored = [f"<{tag}>" for tag in self._sections if tag not in ("appenders", "properties", "loggers")]
        for name, logger in loggers.items():
            ignored += self._logger(name, logger)
        for name, appender in self._appenders.items():
            ignored += _appender(name, appender)
        decisive = loggers.get(self._server, loggers.get(""))
        if decisive is not None:
            ignored += self._level(decisive)
        # Root and server may write to the same file.
        return Mapped(self._settings, list(dict.fromkeys(ignored)))

    def _of(self, section: str) -> list[Element]:
        return list(self._sections.get(section, ()))

    def _level(self, logger: Element) -> Iterator[str]:
        told = (self._resolved(logger.get("level", "")) or "?").lower()
        if told == "debug" and logger.get("name") == self._server:
            return  # as shipped: what it writes there at that level is what is written here by default
        if told in _LEVELS:
            self._settings["log_level"] = _LEVELS[told]
        elif logger.get("level"):
            yield f"the level {logger.get('level')} of the logger {logger.get('name', 'Root')}"

    def _logger(self, name: str, logger: Element) -> Iterator[str]:
        if name not in self._files and name not in self._shipped_levels:
            yield f"the logger {name}"
            return
        if name in self._shipped_levels and logger.get("level", "").lower() != self._shipped_levels[name]:
            yield f"the level of the logger {name}"
        for attribute in sorted(set(logger.attrib) - {"name", "level"}):
            yield f"{attribute} of the logger {name or 'Root'}"
        for part in logger:
            if _tag(part) == "appenderref" and name in self._files:
                yield from self._file(name, part.get("ref", ""))

    def _file(self, logger: str, appender: str) -> Iterator[str]:
        """Take the folder of the file that an appender of a logger writes."""
        written = _attribute(self._appenders.get(appender), "filename")
        if not written:
            return
        setting, usual = self._files[logger]
        place = self._resolved(written)
        if place is None:
            yield f"the place {written} of the appender {appender}"
            return
        folder, file = os.path.split(place)
        if file != usual:
            yield f"the file's name {file} of the appender {appender}, which stays {usual},"
        variable = setting.upper()
        if folder == (self._environ.get(variable) or "logs"):
            return
        if variable in self._environ or self._settings.setdefault(setting, folder) != folder:
            yield f"the folder {folder} of the appender {appender}, which has that of the others or of {variable},"

    def _resolved(self, text: str) -> str | None:
        """Return a text with its lookups filled in, None where one is beyond us."""
        for _ in range(_DEEPEST):
            text = _LOOKUP.sub(self._looked_up, text)
        return None if "${" in text else text

    def _looked_up(self, found: re.Match[str]) -> str:
        kind, name, default = found.groups()
        known = self._environ if kind else self._properties
        return known.get(name, found[0] if default is None else default)


def _appender(name: str, appender: Element) -> Iterator[str]:
    """Yield what of an appender has no effect."""
    if _tag(appender) not in _APPENDERS:
        yield f"the appender {name}, a {appender.tag},"
        return
    for part in list(appender.iter())[1:]:
        if (_tag(part), part.attrib) not in _SHIPPED_PARTS:
            yield f"the {part.tag} of the appender {name}"


def _tag(element: Element) -> str:
    """Return the kind of an element; log4j does not look at letter case, and files may name a namespace."""
    return element.tag.rpartition("}")[2].lower()


def _attribute(element: Element | None, name: str) -> str:
    """Return an attribute in any letter case, "" where there is none."""
    if element is None:
        return ""
    return next((value for key, value in element.items() if key.lower() == name), "")
