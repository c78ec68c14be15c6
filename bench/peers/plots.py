"""Charts as SVG text, drawn by hand: lines over a logarithmic or named axis, bars, and bars in pieces."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

WIDTH, HEIGHT = 860, 400
#: Room around the drawing: left for numbers, right for the names.
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 34, 46
#: Told apart on paper and by most eyes; the first is ours.
COLOURS = (
    "#c8102e",
    "#1f77b4",
    "#17becf",
    "#2ca02c",
    "#9467bd",
    "#e377c2",
    "#8c564b",
    "#bcbd22",
    "#ff7f0e",
    "#7f5a00",
    "#555555",
    "#aaaaaa",
)
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def _svg(height: int, parts: Sequence[str]) -> str:
    inside = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'{_FONT}><rect width="{WIDTH}" height="{height}" fill="white"/>{inside}</svg>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#e4e4e4") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def in_short(value: float) -> str:
    """Return a number for an axis: 1.5k, 20M, 0.3."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def in_words(value: float) -> str:
    """Return a number for the end of a bar, with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def log_ticks(least: float, most: float) -> list[float]:
    """Return the powers of ten from at most ``least`` to at least ``most``; both more than 0."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Return places near those that are wanted, in the same order, at least ``gap`` apart: no name covers another."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = list(wanted)
    for before, after in pairwise(order):
        places[after] = max(places[after], places[before] + gap)
    return places


def line_chart(
    title: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    unit: str,
    colours: Mapping[str, str],
) -> str:
    """Return lines over named places, on a logarithmic axis; a gap where a value is None or not above 0.

    Args:
        names: below the places of the horizontal axis.
        series: values by the name that stands at the end of the line.
    """
    values = [value for line in series.values() for value in line if value is not None and value > 0]
    if not values:
        return ""
    ticks = log_ticks(min(values), max(values))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(index: int) -> float:
        return LEFT + (right - LEFT) * (index + 0.3) / (len(names) - 0.4 if len(names) > 1 else 1)

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (math.log10(value) - low) / (high - low)

    parts = [_text(LEFT, 18, f"{title}, {unit}", more='font-weight="600"')]
    for tick in ticks:
        parts += [_line(LEFT, y(tick), right, y(tick)), _text(LEFT - 8, y(tick) + 4, in_short(tick), "end")]
    parts += [_text(x(index), bottom + 20, name, "middle") for index, name in enumerate(names)]
    ends = []
    for name, line in series.items():
        points = [(x(index), y(value)) for index, value in enumerate(line) if value is not None and value > 0]
        if not points:
            continue
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        width = 3 if name == next(iter(series)) else 1.6
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colours[name]}"/>' for px, py in points]
        ends.append((name, points[-1]))
    places = spread_out([point[1] for _, point in ends], 15)
    lift = max(0.0, max(places) - bottom)
    for (name, point), place in zip(ends, places, strict=True):
        parts.append(_line(point[0] + 4, point[1], right + 6, place - lift, "#c4c4c4"))
        parts.append(_text(right + 10, place - lift + 4, name, more=f'fill="{colours[name]}"'))
    return _svg(HEIGHT, parts)


def bar_chart(
    title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], unit: str, colours: Mapping[str, str]
) -> str:
    """Return horizontal bars, each in pieces that follow one another; the whole stands behind it.

    Args:
        rows: the name of a bar, and its pieces with their sizes.
        colours: by the name of a piece.
    """
    longest = max((sum(size for _, size in pieces) for _, pieces in rows), default=0.0)
    if longest <= 0:
        return ""
    names = list(dict.fromkeys(name for _, pieces in rows for name, _ in pieces))
    height = TOP + 26 * len(rows) + 40
    parts = [_text(10, 18, f"{title}, {unit}", more='font-weight="600"')]
    begin, room = 230, WIDTH - 230 - 110
    for index, (bar, pieces) in enumerate(rows):
        top, left = TOP + 26 * index, float(begin)
        parts.append(_text(begin - 10, top + 14, bar, "end"))
        for name, size in pieces:
            width = room * size / longest
            parts.append(f'<rect x="{left:.1f}" y="{top}" width="{width:.2f}" height="19" fill="{colours[name]}"/>')
            left += width
        parts.append(_text(left + 6, top + 14, in_words(sum(size for _, size in pieces))))
    left = 20.0
    for name in names if any(len(pieces) > 1 for _, pieces in rows) else ():
        parts.append(f'<rect x="{left:.1f}" y="{height - 26}" width="11" height="11" fill="{colours[name]}"/>')
        parts.append(_text(left + 15, height - 16, name))
        left += 28 + 6.6 * len(name)
    return _svg(height, parts)
