"""The memory that processes use."""

from ts.metrics.process_memory_metric import check_process_mem_usage, get_cpu_usage

__all__ = ["check_process_mem_usage", "get_cpu_usage"]
