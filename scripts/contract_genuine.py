"""Installs TorchServe 0.12.0 into an environment of its own and asks it the pairs that marserve is held against.

It needs Java 17 or newer. The environment sees this one's torch, which the original imports and does not ask for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".venv-torchserve"
ORIGINALS = ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "torch-workflow-archiver==0.2.15")
PACKAGES = (*ORIGINALS, "pyyaml", "psutil", "packaging", "requests", "pillow")


#: What can be asked of both.
TESTS = [
    "tests/contract/test_torchserve_pairs.py",
    "tests/contract/test_torchserve_metrics.py",
    "tests/contract/rows",
]


def installed() -> Path:
    """Return the original's command; the environment is made once."""
    command = PLACE / "bin" / "torchserve"
    if command.exists() and (PLACE / "bin" / "torch-workflow-archiver").exists():
        return command
    print(f"Making {PLACE}: this takes about a minute once.", flush=True)
    venv.create(PLACE, with_pip=True, clear=True)
    python = str(PLACE / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
    own = sysconfig.get_path("purelib", vars={"base": str(PLACE), "platbase": str(PLACE)})
    (Path(own) / "torch_of_marserve.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return command


def main() -> int:
    """Run the pairs and the rows, or the files that are named; return pytest's exit code."""
    if shutil.which("java") is None:
        print("TorchServe runs on Java 17 or newer, and there is no java on the path.", file=sys.stderr)
        return 1
    environment = {**os.environ, "CONTRACT_TORCHSERVE": str(installed())}
    tests = [argument for argument in sys.argv[1:] if argument.startswith("tests/")] or TESTS
    options = [argument for argument in sys.argv[1:] if argument not in tests]
    command = [sys.executable, "-m", "pytest", "-q", *tests, *options]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
