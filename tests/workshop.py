"""The worked archives as tests use them: built by the script of users, each once a run."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Seconds for one call of the script; all archives take about a minute on two free cores.
BUILD_TIMEOUT = 300


class Workshop:
    """Builds worked archives by the script of users, trained for seconds where that takes minutes.

    All processes of a run share it.

    Attributes:
        folder: ``store`` with the archives, and ``work``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._printed = folder.with_suffix(".printed")

    @property
    def printed(self) -> str:
        """All that the script has printed."""
        return self._printed.read_text()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self.folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def build(self) -> None:
        """Build all archives."""
        with self._alone():
            self._build()

    def _build(self, *names: str) -> None:
        command = [sys.executable, str(ROOT / "scripts" / "build_archives.py"), "--brief"]
        command += ["--store", str(self.folder / "store"), "--work", str(self.folder / "work")]
        command += [word for name in names for word in ("--only", name)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        with self._printed.open("a") as printed:
            printed.write(ended.stdout)

    def archive(self, name: str) -> Path:
        """Return the file of an archive."""
        made = self.folder / "store" / f"{name}.mar"
        with self._alone():
            if not made.is_file():
                self._build(name)
        return made
