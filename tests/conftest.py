"""What several kinds of tests share: the worked archive, built once a run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Seconds; it takes about ten on two free cores.
BUILD_TIMEOUT = 110


@pytest.fixture(scope="session")
def fizbuz_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the real ``fizbuz_package.mar``, trained, exported and packed by the script of users."""
    folder = tmp_path_factory.mktemp("fizbuz")
    command = [sys.executable, str(ROOT / "scripts" / "build_archives.py"), "--only", "fizbuz_package"]
    command += ["--store", str(folder / "store"), "--work", str(folder / "work")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "store"
