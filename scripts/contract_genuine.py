"""Installs the old servers into environments of their own and asks them what marserve is held against.

TorchServe 0.12.0 and Multi Model Server 1.1.11 both need Java 17 or newer. TorchServe's environment sees this one's
torch, which it imports and does not ask for.

    scripts/contract_genuine.py [torchserve | mms] [tests and options of pytest]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Rows of the table of Multi Model Server; the folder lies among those of TorchServe.
MMS_ROWS = "tests/contract/rows/mms"


@dataclass(frozen=True)
class Original:
    """An old server.

    Attributes:
        variable: tells the tests which command to ask.
        commands: the first is asked; when one is missing, the environment is made anew.
        tests: what can be asked of both.
    """

    name: str
    variable: str
    commands: tuple[str, ...]
    packages: tuple[str, ...]
    tests: tuple[str, ...]
    needs_torch: bool = False

    @property
    def place(self) -> Path:
        """Folder of its environment."""
        return ROOT / f".venv-{self.name}"

    def installed(self) -> Path:
        """Return its command; the environment is made once."""
        commands = [self.place / "bin" / command for command in self.commands]
        if not all(command.exists() for command in commands):
            print(f"Making {self.place}: this takes about a minute once.", flush=True)
            venv.create(self.place, with_pip=True, clear=True)
            pip = [str(self.place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--disable-pip-version-check", *self.packages], check=True)
            if self.needs_torch:
                own = sysconfig.get_path("purelib", vars={"base": str(self.place), "platbase": str(self.place)})
                (Path(own) / "torch_of_marserve.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return commands[0]

    def asked(self, tests: Sequence[str], options: Sequence[str]) -> int:
        """Ask it, and return pytest's exit code."""
        environment = {**os.environ, self.variable: str(self.installed())}
        command = [sys.executable, "-m", "pytest", "-q", *tests, *options]
        if self.name != "mms":
            command += ["--ignore", MMS_ROWS]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


ORIGINALS = (
    Original(
        name="torchserve",
        variable="CONTRACT_TORCHSERVE",
        commands=("torchserve", "torch-workflow-archiver"),
        packages=(
            "torchserve==0.12.0",
            "torch-model-archiver==0.12.0",
            "torch-workflow-archiver==0.2.15",
            "pyyaml",
            "psutil",
            "packaging",
            "requests",
            "pillow",
        ),
        tests=("tests/contract/test_pairs.py", "tests/contract/test_torchserve_metrics.py", "tests/contract/rows"),
        needs_torch=True,
    ),
    Original(
        name="mms",
        variable="CONTRACT_MMS",
        commands=("multi-model-server", "model-archiver"),
        packages=("multi-model-server==1.1.11", "model-archiver==1.0.3"),
        tests=("tests/contract/test_pairs.py", MMS_ROWS),
    ),
)


def main() -> int:
    """Ask the originals the pairs and the rows, or what is named; return the first exit code that is not 0."""
    if shutil.which("java") is None:
        print("The old servers run on Java 17 or newer, and there is no java on the path.", file=sys.stderr)
        return 1
    named = [original for original in ORIGINALS if original.name in sys.argv[1:]] or ORIGINALS
    arguments = [argument for argument in sys.argv[1:] if argument not in {original.name for original in ORIGINALS}]
    wanted = [argument for argument in arguments if argument.startswith("tests/")]
    options = [argument for argument in arguments if argument not in wanted]
    codes = []
    for original in named:
        tests = [test for test in wanted if any(test.startswith(known) for known in original.tests)]
        # What the two have in common begins alike: a file of the rows of one is none of the other's.
        tests = [test for test in tests if test.startswith(MMS_ROWS) <= (original.name == "mms")]
        if tests or not wanted:
            codes.append(original.asked(tests or original.tests, options))
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
