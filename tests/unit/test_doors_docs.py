"""The docs pages of the APIs name every route and every parameter."""

from pathlib import Path

import pytest
from served_fakes import Served

from marserve.doors.http.management import REGISTER, SCALE

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("door", "page"), [("inference", "api-inference.md"), ("management", "api-management.md")])
def test_every_route_has_a_row(door: str, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")

    for route in Served(doors=(door,)).ask("GET", "/").json["routes"]:
        assert f"`{route['method']} {route['path']}`" in text


def test_every_parameter_has_a_row() -> None:
    text = (DOCS / "api-management.md").read_text(encoding="utf-8")

    for row in (*REGISTER, *SCALE):
        assert f"\n| `{row.name}` |" in text
