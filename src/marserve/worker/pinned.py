"""A worker that is pinned to cores: becomes one by way of ``torch.backends.xeon.run_cpu``, or without it."""

from __future__ import annotations

import argparse
import os
import sys

from marserve.worker import main as worker

#: What is started on the cores. It is no script, and the launcher takes Python for none else.
_WORKER = ("--no_python", sys.executable, "-c", f"from {worker.__name__} import main; main()")


def main() -> None:
    """Run a worker on the cores that the command line asks for; one that cannot be pinned runs all the same."""
    parent = os.environ["MARSERVE_PARENT"]
    worker.follow_parent(int(parent))
    os.environ["MARSERVE_PARENT"] = str(os.getpid())
    try:
        from torch.backends.xeon import run_cpu

        parser = argparse.ArgumentParser(prog="cpu_launcher_args")
        run_cpu.create_args(parser)  # type: ignore[no-untyped-call]
        run_cpu.main(parser.parse_args([*sys.argv[1:], *_WORKER]))  # type: ignore[no-untyped-call]
    except (Exception, SystemExit) as error:  # the arguments may be wrong as well
        print(
            f"torch.backends.xeon.run_cpu is not available ({type(error).__name__}: {error}). The worker goes on "
            "without core pinning; cpu_launcher_enable=false leaves it out.",
            file=sys.stderr,
            flush=True,
        )
        os.environ["MARSERVE_PARENT"] = parent
        worker.main()
