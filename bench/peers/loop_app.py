"""The ceiling: one process that calls the service again and again, without any server; prints requests a second."""

from __future__ import annotations

import json
import sys
import time

from bench.peers.service import BATCH, IS_JSON, handle_from_environment


def main() -> None:
    """Call the service with full batches for the seconds of the first argument; the body comes on standard input."""
    handle = handle_from_environment()
    body = sys.stdin.buffer.read()
    bodies = [json.loads(body) if IS_JSON else body] * BATCH
    handle(bodies)
    calls, seconds = 0, float(sys.argv[1])
    end = time.perf_counter() + seconds
    while True:
        handle(bodies)
        if time.perf_counter() > end:
            break  # what is not complete does not count, as with a load
        calls += 1
    print(calls * BATCH / seconds)


if __name__ == "__main__":
    main()
