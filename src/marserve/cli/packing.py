"""What the three archiver commands share: packing with a progress bar, and how errors are told."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from marserve.archive.packing import Contents
from marserve.archive.writer import Packed, Progress, output_path, write_archive
from marserve.errors import ServeError

#: Below this nobody has to wait, bytes.
_LONG = 64 * 2**20
_STEPS = 4


def pack(
    contents: Contents,
    model_name: str,
    folder: Path,
    archive_format: str,
    force: bool,
    keep_others: bool = False,
) -> Packed:
    """Write an archive into a folder, with a bar on a terminal and lines elsewhere; both on standard error.

    Raises:
        ArchiveError: see ``write_archive``.
    """
    output = output_path(folder, model_name, archive_format)
    for warning in contents.warnings:
        say(f"WARNING - {warning}")
    if force and output.exists():
        say(f"WARNING - Overwriting {output} ...")
    with _progress(output.name) as progress:
        return write_archive(contents.entries, output, archive_format, force, progress, keep_others)


def summary(packed: Packed) -> str:
    """Return size and digest of a written archive in one line."""
    return f"{packed.path}: {packed.size} bytes, SHA-256 {packed.sha256}"


def say(text: str) -> None:
    """Print a line to standard error: what the old archivers' users parse on standard output stays clean."""
    print(text, file=sys.stderr)


def run_archiver(action: Callable[[], None]) -> int:
    """Run an archiver and return its exit code.

    It is 0, 1 with the error on standard error, 130 when interrupted, or 143 when told to end; nothing half written
    is left behind.
    """
    try:
        with _ended_by_signal():
            action()
    except ServeError as error:
        say(f"ERROR - {error.message}")
        if error.hint:
            say(error.hint)
        return 1
    except KeyboardInterrupt:
        say("ERROR - Interrupted.")
        return 130
    return 0


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let SIGTERM leave by way of an exception, so that what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's business
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield _lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(name: str) -> Progress:
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if total >= _LONG and done * _STEPS // total > told:
            told = done * _STEPS // total
            say(f"{name}: {done // 2**20} of {total // 2**20} MiB")

    return progress
