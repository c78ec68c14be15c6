"""``make bench``: a table of ratios of marserve to floors, all from one run on one machine.

Contenders take turns: each round starts every one of them, one at a time, checks its answers, warms it up and
measures it, so that a machine that slows down slows them all. Two that differ by little run at the same time, and
take turns each second.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from bench import load
from bench.compare import fallen, machine_kind
from bench.load import MeasureError
from bench.machine import describe_machine
from bench.memory import figures_at_rest
from bench.plan import BRIEF, CONTENDERS, TARGETS, Contender, Target, cell
from bench.report import Results, as_json, print_report
from bench.servers import Running, environment_of, running
from bench.services.build import FIZBUZ, ROOT, Built, built_services
from marserve.errors import ServeError

RESULTS = ROOT / "bench" / "results"
#: Seconds of load before a measurement.
WARM_UP = 1.0
#: Seconds of one turn where two servers run at the same time.
TURN = 1.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How long and with what is measured; ``seconds`` a cell."""

    rounds: int
    seconds: float
    tool: str


def measure(contenders: Sequence[Contender], built: Built, effort: Effort, tell: Tell) -> Results:
    """Measure the contenders in turn, round after round; one that failed is left out of the later rounds."""
    results = Results()
    failed: set[str] = set()
    for number in range(1, effort.rounds + 1):
        found: dict[str, dict[str, float]] = {}
        results.rounds.append(found)
        for together in teams_of(contenders):
            if any(one.key in failed for one in together):
                continue
            tell(f"round {number} of {effort.rounds}: {'; '.join(one.title for one in together)}")
            try:
                _measure_together(together, built, effort, found, results.void)
            except MeasureError as error:
                failed.update(one.key for one in together)
                for name in (name for one in together for name in cells_of(one)):
                    results.void.setdefault(name, f"round {number}: {error}")
    return results


def teams_of(contenders: Sequence[Contender]) -> list[list[Contender]]:
    """Return the contenders that run at the same time: mostly each alone."""
    by_key = {one.key: one for one in contenders}
    second = {one.beside for one in contenders}
    return [
        [one, by_key[one.beside]] if one.beside in by_key else [one] for one in contenders if one.key not in second
    ]


def cells_of(contender: Contender) -> list[str]:
    """Return the names of all cells that a contender fills."""
    loads: list[int | str] = [*(contender.connections or (0,))]
    return [cell(contender.key, each) for each in (*loads, *(("rest", "after") if contender.shows_rest else ()))]


def _measure_together(
    together: Sequence[Contender],
    built: Built,
    effort: Effort,
    found: dict[str, dict[str, float]],
    void: dict[str, str],
) -> None:
    """Measure contenders that run at the same time; the first says under which loads."""
    first = together[0]
    if first.kind == "loop":
        found[cell(first.key, 0)] = {"rps": run_loops(first, built, effort.seconds * first.stretch)}
        return
    with ExitStack() as stack:
        servers = [stack.enter_context(running(one, built)) for one in together]
        if first.shows_rest:
            weight = figures_at_rest(servers[0].process)
            found[cell(first.key, "rest")] = weight | {"first_answer": servers[0].first_answer}
        for connections in first.connections:
            for one, findings in zip(together, _load(first, servers, connections, effort), strict=True):
                name = cell(one.key, connections)
                if findings.errors:
                    void[name] = f"{findings.requests} answers with errors: {_in_words(findings.errors)}."
                found[name] = {"rps": findings.rps, "p50": findings.p50, "p99": findings.p99}
        if first.shows_rest:
            found[cell(first.key, "after")] = figures_at_rest(servers[0].process)


def _load(
    contender: Contender, servers: Sequence[Running], connections: int, effort: Effort
) -> Sequence[load.Findings]:
    """Return what the loads on each server found; on several they take turns."""
    targets = [load.Target(server.port, contender.subject.path, contender.subject.body) for server in servers]
    for target in targets:
        load.put_load(target, connections, WARM_UP, effort.tool)
    seconds = effort.seconds * contender.stretch
    if len(targets) == 1:
        return [load.put_load(targets[0], connections, seconds, effort.tool)]
    turns = [
        [load.put_load(target, connections, TURN, effort.tool) for target in targets]
        for _ in range(max(1, round(seconds / TURN)))
    ]
    return [load.joined(each) for each in zip(*turns, strict=True)]


def _in_words(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in errors.items())


def run_loops(contender: Contender, built: Built, seconds: float) -> float:
    """Return the calls a second that bare loops do, all processes together.

    Raises:
        MeasureError: one of them failed.
    """
    subject = contender.subject
    command = [
        sys.executable,
        "-m",
        "bench.floors.loop",
        str(built.folders / subject.name),
        subject.body,
        str(seconds),
    ]
    loops = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment_of(subject, built),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(contender.processes)
    ]
    outputs = [loop.communicate()[0] for loop in loops]
    for loop, output in zip(loops, outputs, strict=True):
        if loop.returncode:
            raise MeasureError(f"A bare loop ended with {loop.returncode}: {output.strip()[-500:]}")
    return sum(float(output.split()[-1]) for output in outputs)


def write_results(folder: Path, content: dict[str, object], time: str) -> Path:
    """Write a result under its time; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.replace(':', '')}.json"
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    draft.replace(path)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; 0 unless something could not be measured, whatever the figures are."""
    told = _parser().parse_args(argv)
    console = Console(highlight=False)
    is_quick = told.quick or told.brief
    effort = Effort(told.rounds or (1 if is_quick else 3), told.seconds or (2.0 if is_quick else 4.0), told.load)
    only = told.only or (BRIEF if told.brief else ())
    contenders = [one for one in CONTENDERS if not only or one.key in only]
    about = describe_machine()
    console.print(_caption(about, effort), markup=False, soft_wrap=True)
    with failures_told(), built_services() as built, _spinner(console) as status:

        def tell(step: str) -> None:
            status.update(step)
            if not console.is_terminal:
                print(step, flush=True)

        results = measure(contenders, built, effort, tell)
    targets = targets_of(contenders)
    print_report(console, results, targets)
    content = as_json(results, targets, {"machine": about, "effort": asdict(effort)})
    path = write_results(RESULTS, content, str(about["time"]))
    reference = RESULTS / f"reference-{machine_kind(about)}.json"
    if told.as_reference:
        write_results(RESULTS, content, reference.stem)
    else:
        tell_falls(console, reference, content)
    console.print(f"\nAll figures: {os.path.relpath(path)}", markup=False, soft_wrap=True)
    return 1 if results.void else 0


def tell_falls(console: Console, reference: Path, content: Mapping[str, Any]) -> None:
    """Say loudly which ratios fell by more than a fifth against those stored of a machine of this kind."""
    if not reference.is_file():
        told = f"No ratios of such a machine are stored: --as-reference writes {os.path.relpath(reference)}."
        console.print(f"\n{told}", markup=False, soft_wrap=True)
        return
    said = fallen(json.loads(reference.read_text(encoding="utf-8")), content)
    if said:
        lines = ["RATIOS FELL BY MORE THAN A FIFTH against the stored ones of such a machine:", *said]
        console.print("\n" + "\n  ".join(lines), style="bold red", markup=False, soft_wrap=True)
    else:
        console.print("\nNo ratio fell by more than a fifth against the stored ones of such a machine.")


@contextmanager
def failures_told() -> Iterator[None]:
    """End the command with one sentence where nothing can be measured at all."""
    try:
        yield
    except (MeasureError, ServeError) as error:
        sys.exit(f"bench: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: {FIZBUZ.name} cannot be built: {shlex.join(error.cmd)} ended with {error.returncode}.")


def targets_of(contenders: Sequence[Contender]) -> list[Target]:
    """Return the targets that these contenders are enough for."""
    filled = {name for contender in contenders for name in cells_of(contender)}
    return [target for target in TARGETS if target.of in filled and (target.to is None or target.to in filled)]


def _spinner(console: Console) -> Status:
    """Return a sign of life that is drawn once a second: a livelier one would take time from what is measured."""
    return console.status("", refresh_per_second=1)


def _caption(about: dict[str, object], effort: Effort) -> str:
    tool = f"wrk {about['wrk']}" if effort.tool == "wrk" else "the asyncio generator of bench/load.py"
    return (
        f"marserve {about['marserve']} at {about['commit']}, Python {about['python']}, on {about['processor']}, "
        f"{about['cores']} cores; load average {about['load_average']} before the run.\n"
        f"{effort.rounds} x {effort.seconds:g} s a cell. The load comes from {tool}, which shares these cores with "
        f"the server: compare figures of one run only.\n"
        "The model: 10 → 100 → 4 as ONNX, one worker, JSON in and out; every server runs the same service class."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 round of 2 s a cell instead of 3 of 4 s")
    parser.add_argument("--brief", action="store_true", help=f"as --quick, of {', '.join(BRIEF)} alone")
    parser.add_argument("--as-reference", action="store_true", help="store the ratios for machines of this kind")
    parser.add_argument("--rounds", type=int, help="how often every contender is measured")
    parser.add_argument("--seconds", type=float, help="length of a measurement; wrk takes whole seconds")
    keys = [contender.key for contender in CONTENDERS]
    parser.add_argument("--only", nargs="+", choices=keys, metavar="NAME", help=f"contenders, of {', '.join(keys)}")
    parser.add_argument("--load", choices=("wrk", "python"), default=load.find_tool(), help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
