"""``ArgParser``: the flags of the ``multi-model-server`` command."""

from __future__ import annotations

import argparse
from typing import Optional, Sequence


class ArgParser:
    """Makes the parser."""

    @staticmethod
    def mms_parser() -> argparse.ArgumentParser:
        """Return the parser of ``multi-model-server``."""
        from marserve.cli.mms import parser

        return parser()

    @staticmethod
    def str2bool(v: str) -> bool:
        """Return a flag that was written as a word.

        Raises:
            ArgumentTypeError: it is none.
        """
        if v.lower() not in ("yes", "true", "y", "1", "no", "false", "n", "0"):
            raise argparse.ArgumentTypeError(f"{v!r} is neither yes nor no.")
        return v.lower() in ("yes", "true", "y", "1")

    @staticmethod
    def extract_args(args: Optional[Sequence[str]] = None) -> argparse.Namespace:
        """Return the parsed flags: ``args``, or this process's where there are none."""
        return ArgParser.mms_parser().parse_args(args or None)
