"""A command that prints the measures of the host, then the memory of the processes that standard input names."""

from __future__ import annotations

import argparse
import logging
import sys

from . import system_metrics
from .process_memory_metric import check_process_mem_usage


def main() -> None:
    """Print them as lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", type=int, help="number of GPUs")
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    system_metrics.collect_all(system_metrics, parser.parse_args().gpu)
    check_process_mem_usage(sys.stdin)


if __name__ == "__main__":
    main()
