"""Makes from a result file of ``bench.peers.run`` an HTML report with plots, and the table of the README."""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.peers.figures import figures
from bench.peers.tables import Book, Table, about, all_tables, notes, promise_table, readme_rows
from bench.report import print_table
from bench.services.build import ROOT

BEGIN, END = "<!-- peers:begin -->\n", "<!-- peers:end -->"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d1d1f; max-width: 1000px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: .5em 0 2em; font-variant-numeric: tabular-nums }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere }
th { font-weight: 600 } .reached { color: #176d2c } .not-reached { color: #b3261e } figure { margin: 1em 0 2em }
figcaption, .notes { color: #555 } svg { max-width: 100%; height: auto } .wide { overflow-x: auto }
"""


def print_summary(console: Console, content: Mapping[str, Any]) -> None:
    """Print every table, and what could not be measured."""
    book = Book(content)
    for table in all_tables(book):
        print_table(console, table.title, table.heads, table.rows)
    for note in notes(book):
        console.print(f"\n{note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    lines = [table.heads, ["---", *["---:"] * (len(table.heads) - 1)], *table.rows]
    return "".join("| " + " | ".join(each.replace("|", "\\|") for each in line) + " |\n" for line in lines)


def readme_block(content: Mapping[str, Any]) -> str:
    """Return what the README shows of a result: where it was made, and marserve's ratios to each peer."""
    book = Book(content)
    words = (
        "Of requests and bytes a second more than 1 is better, of latency and start less than 1; medians of rounds."
    )
    left_out = "".join(f"{note}\n" for note in notes(book) if not note.startswith("Void"))
    return f"{about(book)}\n{words}\n{left_out}\n{markdown(readme_rows(book))}"


def filled(page: str, text: str) -> str:
    """Return a page with ``text`` between the marks.

    Raises:
        SystemExit: the page does not have the two marks once each.
    """
    found = re.split(f"({re.escape(BEGIN)}|{re.escape(END)})", page)
    if found[1::2] != [BEGIN, END]:
        raise SystemExit(f"The page needs one line {BEGIN.strip()} and, below it, one line {END}.")
    before, _, _, _, after = found
    return before + BEGIN + text + END + after


def html_report(content: Mapping[str, Any]) -> str:
    """Return the whole report as one page that needs nothing beside it."""
    book = Book(content)
    drawn = "".join(
        f"<figure>{svg}<figcaption>{html.escape(words)}</figcaption></figure>" for words, svg in figures(book)
    )
    promises, *others = all_tables(book)
    said = "".join(f"<li>{html.escape(note.splitlines()[0])}</li>" for note in notes(book))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>marserve beside its peers</title>'
        f"<style>{_STYLE}</style><h1>marserve beside its peers</h1><p>{html.escape(about(book))}</p>"
        f"{_table(promises)}<h2>Plots</h2>{drawn}<h2>Tables</h2>"
        "<p>Median (least … most) of the rounds. The columns that begin with marserve are its figure divided by the "
        "row's, taken within each round.</p>"
        f"{''.join(map(_table, others))}<h2>Left out and void</h2><ul class=notes>{said or '<li>nothing</li>'}</ul>"
        "</html>\n"
    )


def _table(table: Table) -> str:
    def line(tag: str, cells: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}{_kind(each)}>{html.escape(each)}</{tag}>" for each in cells) + "</tr>"

    rows = "".join(line("td", row) for row in table.rows)
    return f"<h3>{html.escape(table.title)}</h3><div class=wide><table>{line('th', table.heads)}{rows}</table></div>"


def _kind(text: str) -> str:
    return f' class="{text.replace(" ", "-")}"' if text in ("reached", "not reached") else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.report", description=__doc__)
    parser.add_argument("result", type=Path, help="a file of bench/results/")
    parser.add_argument("--html", type=Path, help="where the report goes; default: beside the result")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md as well")
    told = parser.parse_args(argv)
    content = json.loads(told.result.read_text(encoding="utf-8"))
    page = told.html or told.result.with_suffix(".html")
    page.write_text(html_report(content), encoding="utf-8")
    print(f"written: {page}")
    if told.readme:
        readme = ROOT / "README.md"
        readme.write_text(filled(readme.read_text(encoding="utf-8"), readme_block(content)), encoding="utf-8")
        print(f"written: {readme}")
    table = promise_table(Book(content))
    print_table(Console(highlight=False), table.title, table.heads, table.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
