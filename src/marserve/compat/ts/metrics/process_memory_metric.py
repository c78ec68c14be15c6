"""The memory that processes use."""

from __future__ import annotations

import logging
from typing import TextIO, Union


def get_cpu_usage(pid: Union[int, str]) -> int:
    """Return the resident memory of a process, bytes; 0 when it is not there. The name is TorchServe's."""
    import psutil

    try:
        return int(psutil.Process(int(pid)).memory_info().rss)
    except psutil.Error as error:
        logging.error("The memory of process %s cannot be told: %s", pid, error)
        return 0


def check_process_mem_usage(stdin: TextIO) -> None:
    """Log ``pid:bytes`` for each process of a line of ids that commas separate."""
    for pid in stdin.readline().strip().split(","):
        if pid:
            logging.info("%s:%d", pid, get_cpu_usage(pid))
