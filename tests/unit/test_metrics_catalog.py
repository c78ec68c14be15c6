"""The catalogue and its docs page say the same."""

from pathlib import Path

from marserve.metrics.catalog import CATALOG, COUNTER, HISTOGRAM, table

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_docs_page_holds_the_table_of_the_catalogue() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "put the output of marserve.metrics.catalog.table() there"


def test_names_tell_kind_and_unit_as_prometheus_asks() -> None:
    for row in CATALOG.values():
        assert row.name.startswith("marserve_")
        assert row.name.endswith("_total") == (row.kind == COUNTER)
        assert bool(row.bounds) == (row.kind == HISTOGRAM)
        assert list(row.bounds) == sorted(set(row.bounds))
        if row.unit in ("seconds", "bytes"):
            assert row.unit in row.name
