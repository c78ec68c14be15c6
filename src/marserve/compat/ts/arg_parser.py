"""``ArgParser``: the flags of the ``torchserve`` command, and those that TorchServe gives its workers."""

from __future__ import annotations

import argparse
from typing import Optional, Sequence


class ArgParser:
    """Makes the parsers."""

    @staticmethod
    def ts_parser() -> argparse.ArgumentParser:
        """Return the parser of ``torchserve``."""
        from marserve.cli.torchserve import parser

        return parser()

    @staticmethod
    def model_service_worker_args() -> argparse.ArgumentParser:
        """Return a parser of what TorchServe gives its workers; marserve's take other flags."""
        parser = argparse.ArgumentParser(prog="model-server-worker", description="Flags of TorchServe's workers")
        parser.add_argument("--sock-type", required=True, choices=["unix", "tcp"], help="kind of socket")
        parser.add_argument("--sock-name", help="path of a unix socket")
        parser.add_argument("--host", help="address of a TCP socket")
        parser.add_argument("--port", help="port of a TCP socket")
        parser.add_argument("--metrics-config", help="a metrics.yaml")
        parser.add_argument("--async", dest="async_comm", action="store_true", help="run requests beside each other")
        return parser

    @staticmethod
    def extract_args(args: Optional[Sequence[str]] = None) -> argparse.Namespace:
        """Return the parsed flags of ``torchserve``: ``args``, or this process's where there are none."""
        return ArgParser.ts_parser().parse_args(args or None)
