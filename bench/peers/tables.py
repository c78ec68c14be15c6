"""From a result file to rows of text: medians, ranges and ratios to marserve. No measuring and no drawing here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.peers.plan import name_of
from bench.peers.promises import PROMISES
from bench.peers.table import OURS
from bench.report import Results, Spread, show

#: Figures of a cell as they are shown: heading and unit.
SHOWN = {"rps": ("requests/s", "rps"), "bytes": ("MB/s", "MB/s"), "p50": ("p50 µs", "µs"), "p99": ("p99 µs", "µs")}
MISSING = "-"


@dataclass(frozen=True)
class Table:
    """Rows of text under heads, with what they are about."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Book:
    """A result file, asked by suite, workload, peer and load."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self.peers: dict[str, dict[str, str]] = content["peers"]
        self.suites: list[dict[str, Any]] = content["suites"]
        self._results = Results(content["rounds"], content["void"])

    def title(self, peer: str) -> str:
        """Return the name of a peer for people."""
        return self.peers[peer]["title"] if peer in self.peers else peer

    def suite(self, key: str) -> dict[str, Any] | None:
        """Return a suite's own words, None when it was not part of the run."""
        return next((suite for suite in self.suites if suite["key"] == key), None)

    def spread(self, cell: str, figure: str) -> Spread | None:
        """Return a cell's figure over the rounds; None when it is void or was not measured."""
        return self._results.spread(cell, figure)

    def ratio(self, of: tuple[str, str], to: tuple[str, str]) -> Spread | None:
        """Return one cell's figure divided by another's, each pair of one round; None as ``spread``."""
        (cell, figure), (other, divisor) = of, to
        if {cell, other} & self.content["void"].keys():
            return None
        ratios = [
            one[cell][figure] / one[other][divisor]
            for one in self.content["rounds"]
            if one.get(cell, {}).get(figure) is not None and one.get(other, {}).get(divisor)
        ]
        return Spread.of(ratios) if ratios else None


def text_of(spread: Spread | None, unit: str, has_range: bool = True) -> str:
    """Return a median with its range behind it, a dash for what is not there."""
    if spread is None:
        return MISSING

    def one(value: float) -> str:
        return f"{value / 1e6:,.1f}" if unit == "MB/s" else show(value, unit)

    if not has_range or spread.least == spread.most:
        return one(spread.middle)
    return f"{one(spread.middle)} ({one(spread.least)} … {one(spread.most)})"


def closed_tables(book: Book) -> list[Table]:
    """Return a table a suite and workload: figures under each closed load, and what marserve's are to them."""
    made = []
    for suite in book.suites:
        for workload in suite["workloads"]:
            for load in map(str, suite["closed"]):
                rows = tuple(_closed_row(book, suite, workload, peer, load) for peer in suite["peers"])
                first = SHOWN[suite["unit"]][0]
                heads = ("server", first, "p50 µs", "p99 µs", f"marserve: {first}", "marserve: p50", "marserve: p99")
                kept = tuple(row for row in rows if row[1] != MISSING)
                if kept:
                    words = f"{suite['title']}, {workload}, {load} connection{'s' * (load != '1')}"
                    made.append(Table(words, heads, kept))
    return made


def _closed_row(book: Book, suite: Mapping[str, Any], workload: str, peer: str, load: str) -> tuple[str, ...]:
    name, ours = (name_of(suite["key"], workload, each, load) for each in (peer, OURS))
    figures = (suite["unit"], "p50", "p99")
    shown = (text_of(book.spread(name, figure), SHOWN[figure][1]) for figure in figures)
    ratios = (book.ratio((ours, figure), (name, figure)) for figure in figures)
    words = ("1" if peer == OURS and ratio else text_of(ratio, "x", False) for ratio in ratios)
    return (book.title(peer), *shown, *words)


def open_tables(book: Book) -> list[Table]:
    """Return a table a suite with open loads: latency from the moment at which a request should have left."""
    made = []
    for suite in book.suites:
        loads = [f"rate {rate}" for rate in suite["rates"]] + [f"share {share:g}" for share in suite["shares"]]
        for workload in suite["workloads"]:
            for load in loads:
                rows = [_open_row(book, suite["key"], workload, peer, load) for peer in suite["peers"]]
                heads = (
                    "server",
                    "asked/s",
                    "answered/s",
                    "p50 µs",
                    "p90 µs",
                    "p99 µs",
                    "p99.9 µs",
                    "load: late µs",
                    "load: takes",
                )
                kept = tuple(row for row in rows if row[1] != MISSING)
                if kept:
                    made.append(Table(f"{suite['title']}, open load, {load_in_words(load)}", heads, kept))
    return made


def load_in_words(load: str) -> str:
    """Return an open load's name for people."""
    kind, _, value = load.partition(" ")
    return f"{float(value):.0%} of each server's own maximum" if kind == "share" else f"{value} requests a second"


def _open_row(book: Book, suite: str, workload: str, peer: str, load: str) -> tuple[str, ...]:
    name = name_of(suite, workload, peer, load)
    latencies = ((each, "µs") for each in ("p50", "p90", "p99", "p999", "lag"))
    figures = (("rate", "rps"), ("answered", "rps"), *latencies, ("own_time", "core"))
    return (book.title(peer), *(text_of(book.spread(name, figure), unit, False) for figure, unit in figures))


def weight_table(book: Book) -> list[Table]:
    """Return the table of starts, scaling and memory."""
    suite = book.suite("weight")
    if suite is None:
        return []
    workload, rows = suite["workloads"][0], []
    for peer in suite["peers"]:
        start, scaled = (name_of("weight", workload, peer, load) for load in ("start", "scale"))
        first = book.spread(start, "first_answer")
        took = book.spread(scaled, "seconds")
        restart = book.spread(scaled, "restart")
        to_four = (
            f"restart, {text_of(restart, 's', False)}" if took is None and restart else text_of(took, "s", False)
        )
        memory = (text_of(book.spread(name, "memory"), "MB", False) for name in (start, scaled))
        share = text_of(book.ratio((scaled, "memory"), (start, "memory")), "x", False)
        if first is not None:
            rows.append((book.title(peer), text_of(first, "s", False), to_four, *memory, share))
    heads = ("server", "start to first answer", "one worker to four", "memory, one", "memory, four", "four / one")
    return [Table(f"{suite['title']}; memory is the proportional set size of all processes", heads, tuple(rows))]


def start_table(book: Book) -> list[Table]:
    """Return the table of cold starts with the small model."""
    suite = book.suite("small")
    if suite is None:
        return []
    rows = []
    for peer in suite["peers"]:
        name = name_of("small", suite["workloads"][0], peer, "start")
        if (first := book.spread(name, "first_answer")) is not None:
            rows.append((book.title(peer), text_of(first, "s"), text_of(book.spread(name, "memory"), "MB", False)))
    return [Table("cold start, two layers, one worker", ("server", "to first answer", "memory"), tuple(rows))]


def promise_table(book: Book) -> Table:
    """Return what marserve is held to, and what came out."""
    rows = []
    for promise in PROMISES:
        other, load, figure = promise.divisor
        of = (name_of(promise.suite, promise.workload, OURS, promise.load), promise.figure)
        ratio = book.ratio(of, (name_of(other, promise.workload, promise.peer, load), figure))
        sign = "≤" if promise.is_ceiling else "≥"
        verdict = "not measured" if ratio is None else "reached" if promise.is_kept(ratio.middle) else "not reached"
        rows.append((promise.title, text_of(ratio, "x"), f"{sign} {promise.bound:g} x", verdict))
    return Table("marserve / another", ("what", "ratio", "target", "verdict"), tuple(rows))


def all_tables(book: Book) -> list[Table]:
    """Return every table of a result."""
    return [promise_table(book), *closed_tables(book), *open_tables(book), *start_table(book), *weight_table(book)]


def notes(book: Book) -> list[str]:
    """Return what could not be had or measured, and why, each once."""
    said = [f"{peer['title']} was left out: {peer['left_out']}" for peer in book.peers.values() if peer["left_out"]]
    reasons: dict[str, list[str]] = {}
    for name, reason in book.content["void"].items():
        reasons.setdefault(reason, []).append(name)
    return said + [f"Void: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def about(book: Book) -> str:
    """Return where and with what the result was made, in two lines."""
    machine = book.content["machine"]
    versions = ", ".join(peer["version"] for peer in book.peers.values() if peer["version"])
    return (
        f"{machine['processor']}, {machine['cores']} cores; Python {machine['python']}; {machine['time'][:10]}, "
        f"commit {machine['commit']}; load average {machine['load_average']} before the run, which took "
        f"{machine['seconds'] / 60:.0f} minutes.\n"
        f"{', '.join(dict.fromkeys(versions.split(', ')))}."
    )


def readme_rows(book: Book) -> Table:
    """Return the one table for the README: a row a peer, its ratios to marserve at the loads that say most."""
    columns: Sequence[tuple[str, str, str, str, str]] = (
        ("small model, 64 connections, requests/s", "small", "two_layers", "64", "rps"),
        ("1 connection, median latency", "small", "two_layers", "1", "p50"),
        ("batch up to 32, 64 connections, requests/s", "batch", "two_layers", "64", "rps"),
        ("1 MB in and out, bytes/s", "bodies", "echo_1m", "8", "bytes"),
    )
    rows = []
    for peer in book.peers:
        if peer == OURS:
            continue
        ratios = [
            book.ratio((name_of(suite, workload, OURS, load), figure), (name_of(suite, workload, peer, load), figure))
            for _, suite, workload, load, figure in columns
        ]
        start = (
            "first_answer",
            name_of("small", "two_layers", OURS, "start"),
            name_of("small", "two_layers", peer, "start"),
        )
        ratios.append(book.ratio((start[1], start[0]), (start[2], start[0])))
        if any(ratios):
            rows.append((book.title(peer), *(text_of(ratio, "x", False) for ratio in ratios)))
    heads = ("marserve / …", *(column[0] for column in columns), "cold start")
    return Table("", heads, tuple(rows))
