"""Writes what the documentation takes from the code: settings, metrics, errors; and the figures of a measurement.

``scripts/docs.py`` writes the pages of ``docs/``; ``scripts/docs.py --bench FILE`` puts the figures of one result
file of ``make bench`` into the README.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marserve.config import document
from marserve.doors.http.dialects import DIALECTS, Dialect
from marserve.errors import by_kind
from marserve.metrics import catalog

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def pages() -> dict[Path, str]:
    """Return each page that is made, or holds a part that is made, with the text that it should have."""
    return {
        ROOT / "docs" / "settings.md": document.markdown(),
        ROOT / "docs" / "metrics.md": filled(ROOT / "docs" / "metrics.md", "metrics", catalog.table()),
        ROOT / "docs" / "troubleshooting.md": filled(ROOT / "docs" / "troubleshooting.md", "errors", errors_table()),
    }


def filled(page: Path, name: str, text: str) -> str:
    """Return a page with ``text`` between ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Raises:
        SystemExit: the page does not have the two marks once each.
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    found = re.split(f"({re.escape(begin)}|{re.escape(end)})", page.read_text(encoding="utf-8"))
    if found[1::2] != [begin, end]:
        raise SystemExit(f"{page} needs one line {begin.strip()} and, below it, one line {end}.")
    before, _, _, _, after = found
    return before + begin + text + end + after


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def errors_table() -> str:
    """Return how each dialect answers each kind of error, from the dialects' tables."""
    heads = ("kind", *DIALECTS)
    return table(heads, ((f"`{kind}`", *(_answer(DIALECTS[name], kind) for name in DIALECTS)) for kind in by_kind()))


def _answer(dialect: Dialect, kind: str) -> str:
    row = dialect.errors[kind]
    # Our own dialect's type is the kind itself.
    return str(row.status) if row.type in (kind, "") else f"{row.status} `{row.type}`"


def bench_block(result: Mapping[str, Any]) -> str:
    """Return the figures of one result file as the README shows them.

    Raises:
        SystemExit: something could not be measured; a README shows whole measurements alone.
    """
    sys.path.insert(0, str(ROOT))
    from bench.plan import TARGETS
    from bench.report import Results, figure_rows, target_rows

    results = Results(result["rounds"], result["void"])
    targets = target_rows(results, TARGETS)
    missing = [row[0] for row in targets if row[-1] == "not measured"]
    if missing:
        raise SystemExit("The result file is not of a whole measurement; it lacks: " + "; ".join(missing))
    machine, effort = result["machine"], result["effort"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "uvicorn", "fastapi", "onnxruntime"))
    about = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system'].partition('-')[0]}; {versions}.\n"
        f"Load by {effort['tool']} on the same machine; median (least … most) of {effort['rounds']} rounds of "
        f"{effort['seconds']:g} s, {machine['time'][:10]}, commit {machine['commit']}.\n\n"
    )
    return (
        about
        + table(("what", "figure", "target", ""), targets)
        + "\n"
        + table(("server", "connections", "requests/s", "median µs", "99 % µs"), figure_rows(results))
    )


def write(page: Path, text: str) -> None:
    """Write a page and say whether that changed it."""
    has_changed = not page.exists() or page.read_text(encoding="utf-8") != text
    if has_changed:
        page.write_text(text, encoding="utf-8")
    print(f"{page.relative_to(ROOT)}: {'written' if has_changed else 'up to date'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=Path, metavar="FILE", help="a result file of make bench, for the README")
    bench = parser.parse_args().bench
    if bench is not None:
        write(README, filled(README, "bench", bench_block(json.loads(bench.read_text(encoding="utf-8")))))
        return
    for page, text in pages().items():
        write(page, text)


if __name__ == "__main__":
    main()
