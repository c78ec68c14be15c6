"""A command that prints the measures of the host, then the memory of the processes that standard input names."""

from ts.metrics.metric_collector import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
