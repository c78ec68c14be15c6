"""Which plots a result has: throughput by connections, latency by load, where a request's time goes, weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.peers.plan import name_of
from bench.peers.plots import COLOURS, bar_chart, line_chart
from bench.peers.table import OURS, PEERS
from bench.peers.tables import Book

#: Stages in the order of a request's trip; what is left of the whole is the server's own.
STAGES = ("queue", "wire", "wait", "decode", "preprocess", "inference", "postprocess", "encode")
OWN = "server"


def figures(book: Book) -> Iterator[tuple[str, str]]:
    """Yield a caption and an SVG for each plot that the result has figures for."""
    for caption, svg in (
        *(_by_connections(book, suite) for suite in book.suites if len(suite["closed"]) > 1),
        *_by_open_load(book),
        _stages(book),
        *_bodies(book),
        *_weights(book),
    ):
        if svg:
            yield caption, svg


def _middle(book: Book, name: str, figure: str) -> float | None:
    spread = book.spread(name, figure)
    return None if spread is None else spread.middle


def _colours(book: Book) -> dict[str, str]:
    # By the place in the table: a peer keeps its colour in a run of a few.
    places = {key: index for index, key in enumerate(PEERS)}
    return {book.title(peer): COLOURS[places.get(peer, 0) % len(COLOURS)] for peer in book.peers}


def _marked(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> dict[str, str]:
    """Return one colour for ours, the first, and another for all others."""
    return {bar: COLOURS[min(index, 1)] for index, (bar, _) in enumerate(rows)}


def _by_connections(book: Book, suite: Mapping[str, Any]) -> tuple[str, str]:
    loads, workload = list(map(str, suite["closed"])), suite["workloads"][0]
    series = {
        book.title(peer): [_middle(book, name_of(suite["key"], workload, peer, load), "rps") for load in loads]
        for peer in suite["peers"]
    }
    names = [f"{load} conn." for load in loads]
    caption = f"Throughput by connections, closed loop: {suite['title']}."
    return caption, line_chart(suite["title"], names, series, "requests a second", _colours(book))


def _by_open_load(book: Book) -> Iterator[tuple[str, str]]:
    suite = book.suite("small")
    if suite is None:
        return
    kinds = {
        "share": ("of each server's own maximum", [(f"share {each:g}", f"{each:.0%}") for each in suite["shares"]]),
        "rate": ("requests a second, the same for all", [(f"rate {each}", f"{each}/s") for each in suite["rates"]]),
    }
    for words, loads in kinds.values():
        if len(loads) < 2:
            continue
        for figure, title in (("p50", "median latency"), ("p99", "latency, 99 %"), ("p999", "latency, 99.9 %")):
            series = {
                book.title(peer): [_latency(book, peer, load, figure) for load, _ in loads] for peer in suite["peers"]
            }
            names = [name for _, name in loads]
            caption = f"Open loop, {words}: {title}, counted from the moment at which a request should have left."
            yield caption, line_chart(f"{title}, open loop, {words}", names, series, "µs", _colours(book))


def _latency(book: Book, peer: str, load: str, figure: str) -> float | None:
    value = _middle(book, name_of("small", "two_layers", peer, load), figure)
    return None if value is None else value * 1e6


def _stages(book: Book) -> tuple[str, str]:
    suite = book.suite("small")
    if suite is None:
        return "", ""
    rows = []
    for load in (*(f"rate {rate}" for rate in suite["rates"]), *(f"share {share:g}" for share in suite["shares"])):
        name = name_of("small", "two_layers", OURS, load)
        count = _middle(book, name, "stage count")
        if count:
            spent = {stage: (_middle(book, name, f"stage {stage}") or 0.0) / count * 1e6 for stage in STAGES}
            whole = (_middle(book, name, "stage whole") or 0.0) / count * 1e6
            pieces = [*spent.items(), (OWN, max(0.0, whole - sum(spent.values())))]
            kind, _, value = load.partition(" ")
            words = f"{float(value):.0%} of maximum" if kind == "share" else f"{value} a second"
            rows.append((f"{words}: {whole:,.0f} µs", [(stage, time / whole * 100) for stage, time in pieces]))
    colours = dict(zip((*STAGES, OWN), COLOURS, strict=False))
    caption = (
        "Where a request's time goes in marserve, by its own histograms: from arrival to answer, the mean of all; "
        "what no stage has is the server's own."
    )
    return caption, bar_chart("a request in marserve, open loop", rows, "% of its time", colours)


def _bodies(book: Book) -> Iterator[tuple[str, str]]:
    suite = book.suite("bodies")
    for workload in suite["workloads"] if suite else ():
        rows = []
        for peer in suite["peers"] if suite else ():
            load = str(suite["closed"][0]) if suite else ""
            value = _middle(book, name_of("bodies", workload, peer, load), "bytes")
            if value is not None:
                rows.append((book.title(peer), [(book.title(peer), value / 1e6)]))
        caption = f"Bytes a second, there and back, 8 connections: {workload}."
        yield caption, bar_chart(f"{workload}, body there and back", rows, "MB/s", _marked(rows))


def _weights(book: Book) -> Iterator[tuple[str, str]]:
    suite = book.suite("weight")
    for load, title in (("start", "one worker"), ("scale", "four workers")):
        rows = []
        for peer in suite["peers"] if suite else ():
            value = _middle(book, name_of("weight", "heavy", peer, load), "memory")
            if value is not None:
                rows.append((book.title(peer), [(book.title(peer), value / 1e6)]))
        caption = f"Memory with a model of 400 MB, {title}: proportional set size of all processes."
        yield caption, bar_chart(f"memory, {title}, model of 400 MB", rows, "MB", _marked(rows))
