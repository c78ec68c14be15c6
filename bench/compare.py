"""Holds two result files against each other, and says what got slower beyond the noise of their rounds.

``python -m bench.compare OLD.json NEW.json`` takes two files of ``make bench``, or two of ``make bench-peers``.
Where both know the bare ASGI function under the same load, a figure is compared as a ratio to its: a machine that was
slower on the second day is not taken for a server that is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.report import Spread, print_table

#: Figures of which more is better, and of which less is; others are not compared.
MORE = ("rps", "bytes")
LESS = ("p50", "p99", "first_answer", "seconds", "memory", "resident", "family")
#: A change smaller than this share is none, whatever the ranges say; where there was one round, ranges say nothing.
LEAST, LEAST_OF_ONE = 0.05, 0.2
#: A ratio that falls by more than this share against the reference is said loudly.
FALL = 0.2
FLOOR = "asgi"
_OURS = re.compile(r"(?:^|/)(?P<key>marserve\w*|logged)@")

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One figure in both files.

    Attributes:
        is_ratio: whether it is held against the floor's.
        factor: new divided by old, medians.
        verdict: ``slower``, ``faster`` or ``the same``.
    """

    cell: str
    figure: str
    is_ratio: bool
    old: Spread
    new: Spread
    factor: float
    verdict: str


def changes(old: Content, new: Content) -> Iterator[Change]:
    """Yield every figure of marserve that both files have, in the order of the newer one."""
    names = dict.fromkeys(name for one in new["rounds"] for name in one if _OURS.search(name))
    for name in names:
        floor = _OURS.sub(lambda found: found[0].replace(found["key"], FLOOR), name)
        for figure in (*MORE, *LESS):
            sides = [_values(content, name, figure, floor) for content in (old, new)]
            is_ratio = all(sides)
            if not is_ratio:
                sides = [_values(content, name, figure, None) for content in (old, new)]
            before, after = sides
            if before and after and all(before):
                least = LEAST if min(len(before), len(after)) > 1 else LEAST_OF_ONE
                yield _change(name, figure, is_ratio, Spread.of(before), Spread.of(after), least)


def _values(content: Content, name: str, figure: str, floor: str | None) -> list[float]:
    """Return a figure of each round, divided by the floor's of the same round where one is named; none if void."""
    if {name, floor} & content["void"].keys():
        return []
    rounds = [one for one in content["rounds"] if figure in one.get(name, {})]
    if floor is None:
        return [one[name][figure] for one in rounds]
    return [one[name][figure] / one[floor][figure] for one in rounds if one.get(floor, {}).get(figure)]


def _change(name: str, figure: str, is_ratio: bool, old: Spread, new: Spread, least: float) -> Change:
    factor = new.middle / old.middle
    is_apart = new.most < old.least or new.least > old.most
    verdict = "the same"
    if is_apart and abs(factor - 1) > least:
        verdict = "faster" if (factor > 1) == (figure in MORE) else "slower"
    return Change(name, figure, is_ratio, old, new, factor, verdict)


def fallen(reference: Content, content: Content) -> list[str]:
    """Return a sentence for each ratio of ``make bench`` that fell by more than a fifth against the reference."""
    before = {target["title"]: target for target in reference["targets"] if target["to"] and target["median"]}
    said = []
    for target in content["targets"]:
        old = before.get(target["title"])
        if old is None or not target["median"]:
            continue
        kept = target["median"] / old["median"]
        kept = 1 / kept if target["is_ceiling"] else kept
        if kept < 1 - FALL:
            said.append(f"{target['title']}: {old['median']:.2f} before, {target['median']:.2f} now.")
    return said


def machine_kind(machine: Mapping[str, Any]) -> str:
    """Return what tells one kind of machine from another, for the name of a file: processor and cores."""
    words = re.sub(r"[^a-z0-9]+", "-", str(machine["processor"]).lower()).strip("-")
    return f"{words or 'unknown'}-{machine['cores']}"


def _row(change: Change) -> tuple[str, ...]:
    figure = f"{change.figure} / {FLOOR}" if change.is_ratio else change.figure
    old, new = (f"{each.middle:.4g} ({each.least:.4g} … {each.most:.4g})" for each in (change.old, change.new))
    return (change.cell, figure, old, new, f"{change.factor:.2f} x", change.verdict)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what changed; 1 when something got slower, for those who want to stop at that."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--all", action="store_true", help="also what stayed the same")
    told = parser.parse_args(argv)
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (told.old, told.new))
    kinds = [machine_kind(each["machine"]) for each in (old, new)]
    if kinds[0] != kinds[1]:
        print(f"The machines differ ({kinds[0]}, {kinds[1]}): only ratios to the floor mean something.")
    found = list(changes(old, new))
    shown = [change for change in found if told.all or change.verdict != "the same"]
    heads = ("cell", "figure", "old", "new", "new / old", "verdict")
    print_table(Console(highlight=False), "Changes", heads, [_row(change) for change in shown])
    slower = sum(change.verdict == "slower" for change in found)
    print(f"\n{len(found)} figures compared, {slower} slower beyond the noise of the rounds.")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
