"""What the commands of the two old servers share: their pid file, start in the background, and stop."""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from marserve.cli import serve
from marserve.cli.pidfile import AlreadyRunningError, PidFile, find_server
from marserve.config.loading import load_settings
from marserve.config.snapshot_files import FOLDER, newest
from marserve.errors import ConfigError

#: What both print when the server answers; scripts wait for this line.
STARTED = "Model server started."


class Texts(NamedTuple):
    """The lines that a command prints, which scripts match word for word, and the dialect that it speaks."""

    dialect: str
    running: str
    orphan: str
    stopped: str
    slow: str
    not_running: str
    stopped_before: str


def shared_pid_file() -> Path:
    """Return the path that both old servers use: one of them at a time in a temporary folder."""
    return Path(tempfile.gettempdir(), ".model_server.pid")


def is_running() -> bool:
    """Tell whether a server holds the pid file; the originals say so before all else that is wrong with a start."""
    server = find_server(shared_pid_file())
    if server is None:
        return False
    is_alive = server.is_alive()
    server.close()
    return is_alive


def fail(reason: str) -> int:
    """Print why the command cannot do it, and return its exit code."""
    print(reason, flush=True)
    return serve.FAILED


def absent(flag: str, path: str | None, *, is_folder: bool) -> str | None:
    """Return the complaint about a path that a flag names and that is not there, else None."""
    if not path or (os.path.isdir(path) if is_folder else os.path.isfile(path)):
        return None
    return f"{flag} {'directory' if is_folder else 'file'} not found: {path}"


def warn_inert(arguments: argparse.Namespace, reasons: Mapping[str, str]) -> None:
    """Warn of each given flag that does nothing here."""
    for name, reason in reasons.items():
        if getattr(arguments, name):
            warn(f"--{name.replace('_', '-')} has no effect: {reason}.")


def warn(sentence: str) -> None:
    """Print a warning."""
    print(f"Warning: {sentence}", file=sys.stderr)


def start(texts: Texts, config: str | None, flags: Mapping[str, str | None], foreground: bool) -> int:
    """Start the server in the dialect of ``texts``.

    Args:
        texts: lines of the command.
        config: the file that was named; None for ``./config.properties``, if there is one. TorchServe's newest
            snapshot comes before that one, unless ``flags`` switch snapshots off.
        flags: settings of the command line; None for what was not given.
        foreground: whether to stay until it ends; else this returns at once and the server prints ``STARTED``
            to the same terminal when it is ready.
    """
    serve.open_standard_streams()
    overrides = {key: value for key, value in flags.items() if value is not None}
    chosen = Path(config) if config else _found(texts.dialect, overrides)
    loaded = load_settings(chosen, overrides, texts.dialect, os.environ)
    for warning in loaded.warnings:
        warn(warning)
    serve.check_store(loaded.settings)
    try:
        pid_file = PidFile.claim(shared_pid_file())
    except AlreadyRunningError:
        return fail(texts.running)
    if pid_file.replaced_orphan:
        print(texts.orphan)
    if foreground:
        # Their users' tools look for a word among the arguments of the process, which only a new start can put there.
        serve.become(loaded.settings, pid_file, announcement=STARTED)
    serve.launch(loaded.settings, pid_file, announcement=STARTED)
    pid_file.hand_over()
    return serve.OK


def _found(dialect: str, flags: Mapping[str, str]) -> Path | None:
    """Return the file to read where none was named: the newest snapshot, ``./config.properties``, or none."""
    if dialect == "torchserve" and flags.get("snapshots") != "false":
        folder = Path(os.environ.get("LOG_LOCATION") or flags.get("log_location") or "logs", FOLDER)
        try:
            snapshot = newest(folder)
        except OSError as error:
            raise ConfigError(
                f"The snapshots in {folder} cannot be read: {error.strerror}.", "Start without them: --ncs."
            ) from None
        if snapshot is not None:
            print(f"Restoring {snapshot}; --ncs starts without it.", file=sys.stderr)
            return snapshot
    plain = Path("config.properties")
    return plain if plain.is_file() else None


def _report(reason: str) -> None:
    print(reason, file=sys.stderr, flush=True)


def end(path: Path, texts: Texts, timeout: float) -> int:
    """Stop the server of a pid file; 0 whatever there is to stop, as in the originals."""
    server = find_server(path)
    if server is None:
        print(texts.not_running)
    elif not server.is_alive():
        server.remove_file()
        print(texts.stopped_before)
    else:
        has_ended = serve.stop(server, timeout, _report)
        print(texts.stopped if has_ended else texts.slow)
    if server is not None:
        server.close()
    return serve.OK
