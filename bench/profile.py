"""Where the time of marserve goes under a load: py-spy watches the server and its workers from outside.

Prints the functions with the most time of their own for each process, and keeps the stacks in collapsed form,
which flame graph tools read.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bench import load
from bench.load import MeasureError
from bench.plan import CONTENDERS, MANY, Contender
from bench.report import print_table
from bench.run import RESULTS, WARM_UP, failures_told
from bench.servers import running
from bench.services.build import Built, built_services

#: Samples a second.
RATE = 500
#: Seconds of load before and after the samples, so that they hold nothing else.
MARGIN = 1.0


@dataclass(frozen=True)
class Hot:
    """A function in the samples of one process.

    Attributes:
        own: share of the samples in which it ran itself, 0..1.
        total: share in which it, or something that it called, ran.
    """

    function: str
    own: float
    total: float


def hottest(collapsed: str, count: int) -> list[Hot]:
    """Return the functions with the largest own share, of stacks as ``outer;inner samples``, one a line.

    A frame's line number is left out, so that a function's lines add up; a function that calls itself counts once a
    stack.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, samples = line.rpartition(" ")
        if not stack:
            continue
        functions = [_without_line(frame) for frame in stack.split(";")]
        own[functions[-1]] += int(samples)
        for function in set(functions):
            total[function] += int(samples)
    all_samples = sum(own.values())
    return [Hot(name, part / all_samples, total[name] / all_samples) for name, part in own.most_common(count)]


def _without_line(frame: str) -> str:
    """Return ``name (file)`` of ``name (file:line)``."""
    head, separator, line = frame.rpartition(":")
    return f"{head})" if separator and line.rstrip(")").isdigit() else frame


def find_py_spy() -> str:
    """Return the path of py-spy.

    Raises:
        MeasureError: it is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.is_file() else shutil.which("py-spy")
    if found is None:
        raise MeasureError(f"py-spy is not installed. Install it: {sys.executable} -m pip install py-spy")
    return found


def record(contender: Contender, built: Built, connections: int, seconds: float, tool: str) -> dict[str, str]:
    """Run a contender under a load and return the collapsed stacks of each of its processes, by what it is.

    Raises:
        MeasureError: the server or py-spy failed.
    """
    py_spy = find_py_spy()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, running(contender, built) as server:
        target = load.Target(server.port, contender.subject.path, contender.subject.body)
        load.put_load(target, connections, WARM_UP, tool)
        watched = {"server": server.process.pid}
        below = server.process.children(recursive=True)
        for number, worker in enumerate((one for one in below if "marserve.worker" in " ".join(one.cmdline())), 1):
            watched[f"worker {number}"] = worker.pid
        command = [py_spy, "record", "--format", "raw", "--rate", str(RATE), "--duration", str(round(seconds))]
        spies = {
            name: subprocess.Popen(
                [*command, "--pid", str(pid), "--output", str(Path(folder, name))],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name, pid in watched.items()
        }
        load.put_load(target, connections, seconds + MARGIN, tool)
        said = {name: spy.communicate()[0] for name, spy in spies.items()}
        for name, spy in spies.items():
            if spy.returncode:
                raise MeasureError(f"py-spy could not watch the {name}: {said[name].strip()[-400:]}")
        return {name: Path(folder, name).read_text() for name in watched}


def main() -> None:
    """Record and print."""
    keys = [one.key for one in CONTENDERS if one.kind == "marserve"]
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("contender", nargs="?", choices=keys, default=keys[0], help="default: %(default)s")
    parser.add_argument("-c", "--connections", type=int, default=MANY)
    parser.add_argument("-d", "--seconds", type=float, default=5.0)
    parser.add_argument("-n", "--count", type=int, default=25, help="functions a process")
    parser.add_argument("--load", choices=("wrk", "python"), default=load.find_tool())
    told = parser.parse_args()
    contender = next(one for one in CONTENDERS if one.key == told.contender)
    # Else the parent that workers are forked from would be watched too, which does nothing under a load.
    contender = replace(contender, settings={**contender.settings, "worker_start": "spawn"})
    with failures_told(), built_services() as built:
        stacks = record(contender, built, told.connections, told.seconds, told.load)
    RESULTS.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    for name, collapsed in stacks.items():
        path = RESULTS / f"profile-{contender.key}-{name.replace(' ', '-')}.txt"
        path.write_text(collapsed)
        rows = [[hot.function, f"{hot.own:.1%}", f"{hot.total:.1%}"] for hot in hottest(collapsed, told.count)]
        print_table(
            console, f"{contender.title}, {name}: {os.path.relpath(path)}", ("function", "own", "total"), rows
        )


if __name__ == "__main__":
    main()
