"""Medians, ranges and ratios of the rounds, as tables and as JSON. No measuring here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.plan import CONTENDERS, Cell, Target, cell

#: One round's figures by cell, then by name.
Round = Mapping[Cell, Mapping[str, float]]


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the median and the range of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass
class Results:
    """All rounds, and by cell why it is void: what failed once counts in no round."""

    rounds: list[dict[Cell, dict[str, float]]] = field(default_factory=list)
    void: dict[Cell, str] = field(default_factory=dict)

    def spread(self, of: Cell, figure: str) -> Spread | None:
        """Return a cell's figure over the rounds, None when the cell is void or was not measured."""
        if of in self.void:
            return None
        values = [one[of][figure] for one in self.rounds if figure in one.get(of, {})]
        return Spread.of(values) if values else None

    def outcome(self, target: Target) -> Spread | None:
        """Return what a target came to, None when it could not be measured.

        A ratio is taken within each round, whose cells were measured close together, and then over the rounds:
        a machine that slows down from round to round moves both its sides.
        """
        if target.to is None:
            return self.spread(target.of, target.figure)
        if target.of in self.void or target.to in self.void:
            return None
        ratios = [
            one[target.of][target.figure] / one[target.to][target.figure]
            for one in self.rounds
            if target.of in one and target.to in one
        ]
        return Spread.of(ratios) if ratios else None


def show(value: float, unit: str) -> str:
    """Return a figure as text: bytes as MB, seconds of latency as µs, and so on."""
    if unit == "yes/no":
        return "yes" if value else "no"
    if unit == "MB":
        return f"{value / 1e6:.1f} MB"
    if unit == "µs":
        return f"{value * 1e6:,.0f}"
    if unit == "rps":
        return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
    return f"{value:.2f} {unit}"


def show_spread(spread: Spread | None, unit: str) -> str:
    """Return the median with the range behind it, a dash for what is not there."""
    if spread is None:
        return "-"
    if math.isclose(spread.least, spread.most):
        return show(spread.middle, unit)
    return f"{show(spread.middle, unit)} ({show(spread.least, unit)} … {show(spread.most, unit)})"


def figure_rows(results: Results) -> list[list[str]]:
    """Return a row a load: who, connections, requests a second, latencies."""
    rows = []
    for contender in CONTENDERS:
        for connections in contender.connections or (0,):
            name = cell(contender.key, connections)
            if name in results.void or results.spread(name, "rps") is not None:
                rps, p50, p99 = (results.spread(name, figure) for figure in ("rps", "p50", "p99"))
                load = str(connections or "-")
                latencies = (show_spread(p50, "µs"), show_spread(p99, "µs"))
                rows.append([contender.title, load, show_spread(rps, "rps"), *latencies])
    return rows


def rest_rows(results: Results) -> list[list[str]]:
    """Return a row a figure that is promised nowhere but says what a server weighs."""
    wanted = (
        ("server process with its worker, resident", cell("marserve", "rest"), "family"),
        ("server process after the loads, resident", cell("marserve", "after"), "resident"),
    )
    found = [(title, results.spread(name, figure)) for title, name, figure in wanted]
    return [[title, show_spread(spread, "MB")] for title, spread in found if spread is not None]


def target_rows(results: Results, targets: Sequence[Target]) -> list[list[str]]:
    """Return a row a target: what it is, what it came to, what is promised, and whether that is kept."""
    rows = []
    for target in targets:
        outcome = results.outcome(target)
        sign = "≤" if target.is_ceiling else "≥"
        promised = show(target.bound, target.unit)
        verdict = "not measured"
        if outcome is not None:
            verdict = "reached" if target.is_reached(outcome.middle) else "not reached"
        is_bare = target.unit == "yes/no"
        rows.append(
            [target.title, show_spread(outcome, target.unit), promised if is_bare else f"{sign} {promised}", verdict]
        )
    return rows


_STYLES = {"reached": "green", "not reached": "bold red", "not measured": "yellow"}


def print_table(console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, else lines whose cells are set apart by two blanks."""
    if not rows:
        return
    if console.is_terminal:
        table = Table(title=title, title_justify="left")
        for index, head in enumerate(heads):
            table.add_column(head, justify="right" if index and head != "verdict" else "left")
        for row in rows:
            table.add_row(*row, style=_STYLES.get(row[-1]))
        console.print(table)
        return
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
    print(f"\n{title}")
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_report(console: Console, results: Results, targets: Sequence[Target]) -> None:
    """Print figures, ratios with what is promised, and what could not be measured."""
    count = len(results.rounds)
    spread = "" if count == 1 else f", median (least … most) of {count} rounds"
    heads = ("server", "connections", "requests/s", "p50 µs", "p99 µs")
    print_table(console, f"Figures{spread}", heads, figure_rows(results))
    print_table(console, "Weight", ("what", "figure"), rest_rows(results))
    print_table(console, f"Ratios{spread}", ("what", "figure", "target", "verdict"), target_rows(results, targets))
    for reason in dict.fromkeys(results.void.values()):
        names = ", ".join(name for name, given in results.void.items() if given == reason)
        console.print(f"\nVoid: {names}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def as_json(results: Results, targets: Sequence[Target], about: Mapping[str, object]) -> dict[str, object]:
    """Return everything that was found, for a file."""
    found: list[dict[str, object]] = []
    for target in targets:
        outcome = results.outcome(target)
        found.append(
            {
                "title": target.title,
                "figure": target.figure,
                "of": target.of,
                "to": target.to,
                "bound": target.bound,
                "is_ceiling": target.is_ceiling,
                "median": outcome and outcome.middle,
                "least": outcome and outcome.least,
                "most": outcome and outcome.most,
                "is_reached": outcome and target.is_reached(outcome.middle),
            }
        )
    return {**about, "targets": found, "void": results.void, "rounds": results.rounds}
