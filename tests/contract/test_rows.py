"""Every row of the old servers' feature tables is on the migration page, and what works is held by a test."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import pairs

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
#: The letters of TorchServe's table, and how many rows each has.
_TORCHSERVE_ROWS = [
    f"{letter}{number}"
    for letter, count in {"A": 13, "B": 13, "C": 16, "D": 11, "E": 30, "F": 27, "H": 16, "K": 5, "L": 9}.items()
    for number in range(1, count + 1)
] + ["I1", "I2", "I3", "I8", "I9"]
ROWS = [*_TORCHSERVE_ROWS, *(f"M{number}" for number in range(1, 81))]
#: Where the tests are of those rows that no story holds; what needs MXNet is tested against a stub, or with MXNet.
_TESTS = Path(__file__).parents[1]
TESTS = [
    *(_TESTS / "contract" / "rows").rglob("test_*.py"),
    _TESTS / "unit" / "test_compat_mms.py",
    _TESTS / "e2e" / "test_mxnet_conversion.py",
]
#: How a row of the page says how it is here.
VERDICTS = ("same", "better", "not supported", "not run")


def page_rows() -> dict[str, str]:
    """Return what the page says of each row, by its name."""
    lines = PAGE.read_text().splitlines()
    found = [re.fullmatch(r"\| ([A-Z]\d+) \| [^|]+ \| ([^|]+) \|", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def rows_of_tests() -> set[str]:
    """Return the rows that stories and marked tests hold."""
    files = [path for original in pairs.ORIGINALS for path in pairs.files(original)]
    held = {story["row"] for path in files for story in json.loads(path.read_text())["stories"]}
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.row":
                held |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return held


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_on_the_page_and_held_by_a_test(row: str) -> None:
    told = page_rows().get(row)
    assert told is not None, f"{PAGE.name} has no row {row}"
    assert told.startswith(VERDICTS), told
    assert row in rows_of_tests() or told.startswith("not "), f"no pair and no test holds {row}"


def test_the_page_has_no_other_rows() -> None:
    assert page_rows().keys() - set(ROWS) <= {"I7"}
