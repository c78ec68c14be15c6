"""A command that prints the measures of the host, then the memory of the processes that standard input names."""

from __future__ import annotations

import argparse
import logging
import sys


def main() -> None:
    """Print them as lines."""
    # By whole names: ``system_metrics_cmd`` runs this file as a script, which has no package around it.
    from ts.metrics import system_metrics
    from ts.metrics.process_memory_metric import check_process_mem_usage

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", type=int, help="number of GPUs")
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    system_metrics.collect_all(system_metrics, parser.parse_args().gpu)
    check_process_mem_usage(sys.stdin)


if __name__ == "__main__":
    main()
