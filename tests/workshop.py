"""The worked archives as tests use them: built by the script of users, each once a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Seconds for one call of the script; all archives take about a minute on two free cores.
BUILD_TIMEOUT = 300


class Workshop:
    """Builds worked archives by the script of users, trained for seconds where that takes minutes.

    Attributes:
        folder: ``store`` with the archives, and ``work``.
        printed: all that the script has printed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed = ""

    def build(self, *names: str) -> str:
        """Build archives, all of them if none is named; return what the script printed."""
        command = [sys.executable, str(ROOT / "scripts" / "build_archives.py"), "--brief"]
        command += ["--store", str(self.folder / "store"), "--work", str(self.folder / "work")]
        command += [word for name in names for word in ("--only", name)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        self.printed += ended.stdout
        return ended.stdout

    def archive(self, name: str) -> Path:
        """Return the file of an archive."""
        made = self.folder / "store" / f"{name}.mar"
        if not made.is_file():
            self.build(name)
        return made
