"""``start`` and ``old_start``: the ``multi-model-server`` command, for scripts that call it from Python."""

from __future__ import annotations

import sys


def start() -> None:
    """Run the command with this process's arguments, and end the process with its exit code."""
    from marserve.cli.mms import main

    sys.exit(main())


def old_start() -> None:
    """Run it under its name of before."""
    print("Warning: Calling MMS with mxnet-model-server. Please move to multi-model-server.")
    start()


if __name__ == "__main__":
    start()
