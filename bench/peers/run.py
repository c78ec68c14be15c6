"""``make bench-peers``: marserve beside other servers, on the same services, machine and run, as ratios to marserve.

Contenders take turns, A B C, A B C: each is started alone, shows that it answers rightly, gets its loads and ends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from urllib.request import urlopen

from rich.console import Console

from bench import load
from bench.load import MeasureError
from bench.machine import describe_machine
from bench.memory import proportional
from bench.open_loop import MOST_LAG, OpenFindings
from bench.peers.asking import ask
from bench.peers.commands import Mode
from bench.peers.install import lacking, versions
from bench.peers.launch import Standing, family_of, run_loops, standing
from bench.peers.management import scale
from bench.peers.plan import (
    MANY,
    QUICK,
    SUITES,
    WARM_UP,
    Suite,
    cells_of,
    expected_seconds,
    name_of,
)
from bench.peers.report import print_summary
from bench.peers.stages import stage_seconds
from bench.peers.table import LOOP, OURS, PEERS, Peer
from bench.report import Results
from bench.run import failures_told, write_results
from bench.services.build import ROOT, Built
from bench.services.workloads import WORKLOADS, built_workloads

RESULTS = ROOT / "bench" / "results"
#: Share of answers that may be errors before a cell counts as void.
FEW = 0.001

#: Seconds between two looks at memory that may still grow; without growth after which it has settled; and at most.
GLANCE, SETTLED, LONGEST_GROWTH = 0.1, 1.0, 20.0

Tell = Callable[[str], None]
Figures = dict[str, float]


@dataclass
class _Turn:
    """One start of a peer in a suite: where its figures go."""

    suite: Suite
    peer: Peer
    number: int
    tool: str
    found: dict[str, Figures]
    void: dict[str, str]

    def cell(self, workload: str, load: str) -> str:
        return name_of(self.suite.key, workload, self.peer.key, load)


def measure(suites: Sequence[Suite], peers: Sequence[str], built: Built, tool: str, tell: Tell) -> Results:
    """Work through suites in rounds; who failed in a suite is left out of its later rounds."""
    results = Results()
    failed: set[tuple[str, str]] = set()
    for number in range(1, max(suite.rounds for suite in suites) + 1):
        found: dict[str, Figures] = {}
        results.rounds.append(found)
        for suite in suites:
            for key in suite.peers:
                if number > suite.rounds or key not in peers or (suite.key, key) in failed:
                    continue
                tell(f"round {number}: {suite.title}: {PEERS[key].title}")
                turn = _Turn(suite, PEERS[key], number, tool, found, results.void)
                try:
                    _take_turn(turn, built)
                except MeasureError as error:
                    failed.add((suite.key, key))
                    tell(f"  failed: {str(error).splitlines()[0]}")
                    for name in cells_of(suite, key):
                        if name not in found:
                            results.void.setdefault(name, f"round {number}: {error}")
    return results


def _take_turn(turn: _Turn, built: Built) -> None:
    suite = turn.suite
    # The model is the same for all workloads of a suite: one start serves them, but for what a body's type decides.
    first = WORKLOADS[suite.workloads[0]]
    if turn.peer.launcher == LOOP:
        for connections in map(str, suite.closed):
            found = run_loops(first, suite.mode, built, suite.seconds)
            turn.found[turn.cell(first.key, connections)] = {"rps": found}
        return
    with standing(turn.peer, first, suite.mode, built) as server:
        turn.found[turn.cell(first.key, "start")] = {"first_answer": server.first_answer, "memory": _held(server)}
        for key in suite.workloads:
            _load_all(turn, server, key)
        if suite.scales_to and turn.peer.scaling:
            took = scale(server.launch, server.process, suite.scales_to)
            turn.found[turn.cell(first.key, "scale")] = {"seconds": took, "memory": _held(server)}
    if suite.scales_to and not turn.peer.scaling:
        with standing(turn.peer, first, Mode(suite.scales_to, suite.mode.batch), built) as server:
            took, held = settled(lambda: _held(server))
            turn.found[turn.cell(first.key, "scale")] = {"memory": held, "restart": server.first_answer + took}


def _held(server: Standing) -> float:
    return proportional(one.pid for one in family_of(server.process.pid))


def settled(read: Callable[[], float], pause: Callable[[float], None] = time.sleep) -> tuple[float, float]:
    """Return the seconds until what ``read`` gives has stopped growing, as counted by the pauses, and its last value.

    Of several workers that start at once one answers before the others have loaded their model.
    """
    waited, last_growth, held = 0.0, 0.0, read()
    while waited - last_growth < SETTLED and waited < LONGEST_GROWTH:
        pause(GLANCE)
        waited += GLANCE
        now = read()
        if now > held * 1.02:
            held, last_growth = now, waited
    return last_growth, held


def _load_all(turn: _Turn, server: Standing, key: str) -> None:
    suite = turn.suite
    body = server.launch.folder / "body"
    to = server.to_workload(WORKLOADS[key])
    body.write_bytes(to.body)
    target = load.Target(to.port, to.path, f"@{body}", to.content_type)
    if suite.closed:
        load.put_load(target, suite.closed[0], WARM_UP, turn.tool)
    # Before each load one request is waited for: a server works on what the last load left behind, mostly for clients
    # that have gone, and that would be taken from the next.
    for connections in suite.closed:
        name = turn.cell(key, str(connections))
        ask(to)
        found = load.put_load(target, connections, suite.seconds, turn.tool)
        figures = {"rps": found.rps, "p50": found.p50, "p90": found.p90, "p99": found.p99}
        turn.found[name] = figures | {"bytes": found.rps * 2 * len(to.body)}
        _judge(turn, name, found.requests, found.errors)
    for opened in suite.open_loads(turn.number):
        ask(to)
        _load_openly(turn, server, key, target, opened)


def _load_openly(turn: _Turn, server: Standing, key: str, target: load.Target, opened: str) -> None:
    """Put one open load; a share is taken of the maximum that was found just before."""
    kind, _, value = opened.partition(" ")
    most = turn.found.get(turn.cell(key, str(MANY)), {}).get("rps", 0.0)
    rate = float(value) if kind == "rate" else float(value) * most
    name = turn.cell(key, opened)
    before = _stages_of(server)
    found = run_open_load(target, rate, turn.suite.seconds)
    spent = {f"stage {stage}": value - before.get(stage, 0.0) for stage, value in _stages_of(server).items()}
    if found.is_void:
        late = f"the load itself was late by {found.lag * 1000:.1f} ms (99 %), allowed are {MOST_LAG * 1000:g}"
        # Under a name of its own: this run counts for nothing, those of other rounds do.
        turn.void[f"{name} in round {turn.number}"] = late
        return
    broken = {kind: count for kind, count in found.errors.items() if kind != "timeout"}
    _judge(turn, name, found.requests, broken)
    # An open load that is more than a server can do is a finding, no failure: its latency says so.
    counted = {each: value for each, value in asdict(found).items() if isinstance(value, float)}
    turn.found[name] = counted | {"answered": found.requests / found.seconds} | spent


def _stages_of(server: Standing) -> dict[str, float]:
    if server.launch.peer.key != OURS:
        return {}
    with urlopen(f"http://127.0.0.1:{server.launch.metrics}/metrics", timeout=10) as answer:
        return stage_seconds(answer.read().decode())


def run_open_load(target: load.Target, rate: float, seconds: float) -> OpenFindings:
    """Put an open load from a process of its own, in which nothing else can be late.

    Raises:
        MeasureError: it failed.
    """
    command = [sys.executable, "-m", "bench.open_loop", str(target.port), target.path, target.body]
    command += ["-r", str(rate), "-d", str(seconds), "-t", target.content_type]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60)
    if ended.returncode:
        raise MeasureError(f"The open load ended with {ended.returncode}: {ended.stderr.strip()[-300:]}")
    return OpenFindings(**json.loads(ended.stdout))


def _judge(turn: _Turn, name: str, requests: int, errors: dict[str, int]) -> None:
    if sum(errors.values()) > FEW * requests:
        said = ", ".join(f"{count} {kind}" for kind, count in errors.items())
        turn.void[name] = f"round {turn.number}: {requests} answers with errors: {said}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print ratios, and write the result; 0 also where a peer could not be had, which is said."""
    told = _parser().parse_args(argv)
    console = Console(highlight=False)
    suites = [suite for suite in (QUICK if told.quick else SUITES) if not told.suites or suite.key in told.suites]
    wanted = told.only or list(PEERS)
    reasons = {key: lacking(PEERS[key]) for key in wanted}
    for key, reason in reasons.items():
        if reason:
            console.print(f"{PEERS[key].title} is left out: {reason}", style="yellow")
    about = describe_machine()
    began = time.monotonic()

    def tell(step: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {step}", flush=True)

    archives = sorted({WORKLOADS[key].archive for suite in suites for key in suite.workloads})
    with failures_told(), built_workloads(archives) as built:
        results = measure(suites, [key for key in wanted if not reasons[key]], built, told.load, tell)
    content = as_json(results, suites, reasons, about | {"seconds": round(time.monotonic() - began)})
    path = write_results(RESULTS, content, f"peers-{about['time']}")
    print_summary(console, content)
    console.print(f"\nAll figures: {os.path.relpath(path)}", markup=False, soft_wrap=True)
    return 0


def as_json(
    results: Results, suites: Sequence[Suite], reasons: dict[str, str], about: dict[str, object]
) -> dict[str, object]:
    """Return everything that was found, and what is needed to read it, for a file."""
    peers = {
        key: {"title": PEERS[key].title, "version": versions(PEERS[key]), "left_out": reason}
        for key, reason in reasons.items()
    }
    return {
        "machine": about,
        "peers": peers,
        "suites": [asdict(suite) for suite in suites],
        "void": results.void,
        "rounds": results.rounds,
    }


def _parser() -> argparse.ArgumentParser:
    minutes, quick = (f"{expected_seconds(suites) / 60:.0f}" for suites in (SUITES, QUICK))
    parser = argparse.ArgumentParser(prog="python -m bench.peers.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"about {quick} minutes instead of {minutes}")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), metavar="PEER", help=f"of {', '.join(PEERS)}")
    keys = [suite.key for suite in SUITES]
    parser.add_argument("--suites", nargs="+", choices=keys, metavar="SUITE", help=f"of {', '.join(keys)}")
    parser.add_argument("--load", choices=("wrk", "python"), default=load.find_tool(), help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
