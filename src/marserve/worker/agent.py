"""The process above the ranks of a worker: runs torchrun, and ends as the first rank that fails has ended."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

from marserve.errors import LoadError
from marserve.worker.exits import EXIT_RANK_LOST
from marserve.worker.main import follow_parent, run

#: The module that torchrun starts once a rank.
RANK = "marserve.worker.main"


def main() -> None:
    """Run torchrun with the options of the command line, and end the process."""
    follow_parent(int(os.environ["MARSERVE_PARENT"]))
    os.environ["MARSERVE_PARENT"] = str(os.getpid())
    os.environ["PYTHON_EXEC"] = sys.executable
    try:
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import main as torchrun
    except ImportError as error:
        from marserve.worker.loop import failed

        why = LoadError(
            f"A parallelType needs torchrun, and torch cannot be imported where the worker runs: {error}.",
            "Install torch there, or leave parallelType out of the model-config.yaml.",
        )
        outcome = failed(why)
        sys.exit(run(os.environ.pop("MARSERVE_GATE"), os.environ.pop("MARSERVE_TOKEN"), None, lambda *_: outcome))
    try:
        torchrun([*sys.argv[1:], "-m", RANK])
    except ChildFailedError as error:
        _end_as(error)


def _end_as(error: Any) -> NoReturn:
    """Name the rank that failed, and end as it has: the server's autopsy shows how.

    A rank that ended because another was gone is not the one, if another has failed at all.
    """
    failure = min(error.failures.values(), key=lambda failure: failure.exitcode == EXIT_RANK_LOST)
    code: int = failure.exitcode
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    elif code == EXIT_RANK_LOST:
        how = "ended because another had; it has said which"
    print(f"Rank {failure.local_rank} {how}.", file=sys.stderr, flush=True)
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handler that could be put back
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code > 0 else EXIT_RANK_LOST)
