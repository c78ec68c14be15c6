"""The entry point of the ``torchserve`` command, by its old name."""

from __future__ import annotations

import sys


def start() -> None:
    """Run the command with the flags of this process; ends the process where it fails."""
    from marserve.cli.torchserve import main

    code = main()
    if code:
        sys.exit(code)


if __name__ == "__main__":
    start()
