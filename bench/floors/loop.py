"""The ceiling of a slow model: one process that calls the service again and again, without any server."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from bench.floors.service import load_predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="unpacked archive")
    parser.add_argument("body", help="JSON of the request")
    parser.add_argument("seconds", type=float)
    told = parser.parse_args()
    predict = load_predict(told.folder)
    value = json.loads(told.body)
    predict(value)
    calls = 0
    began = time.perf_counter()
    end = began + told.seconds
    while time.perf_counter() < end:
        predict(value)
        calls += 1
    print(calls / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
