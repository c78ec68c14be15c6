"""Metrics as lines of text: what is one, and those among what workers print."""

import json

import pytest

from marserve.metrics.lines import MetricLine, PrintedMetrics, Printer, parse_line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "Own.Count:3|#Color:red,Level:Model|#type:GAUGE|#hostname:h,1700000000,id1,id2",
            MetricLine("Own", "Count", 3.0, {"Color": "red", "Level": "Model"}, "gauge", "h", "id1,id2"),
        ),
        (
            " CPU time.Percent:1.5e-3|#|#hostname:h,1",
            MetricLine("CPU time", "Percent", 0.0015, {}, "", "h", ""),
        ),
        ("Own.Count:1,5|#|#hostname:h,1", None),
        ("Own.Count:x|#|#hostname:h,1", None),
        ("Own:1|#|#hostname:h,1", None),
        ("Own.Count:1|#Level:Host|1", None),
    ],
)
def test_lines(text: str, found: MetricLine | None) -> None:
    assert parse_line(text) == found


@pytest.fixture
def reports() -> list[tuple[Printer, bytes]]:
    return []


@pytest.fixture
def lines() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def printed(reports: list[tuple[Printer, bytes]], lines: list[tuple[str, str]]) -> PrintedMetrics:
    return PrintedMetrics(lambda *told: reports.append(told), lambda *told: lines.append(told))


@pytest.mark.parametrize("before", ["", "INFO > "])
def test_a_printed_metric_is_a_report_and_no_line(
    printed: PrintedMetrics, reports: list[tuple[Printer, bytes]], lines: list[tuple[str, str]], before: str
) -> None:
    printed("my:model:1.0#9000", f"{before}[METRICS]Own.Count:3|#Color:red|#type:COUNTER|#hostname:h,1,id1")

    ((printer, report),) = reports
    assert printer == ("my:model", "1.0")
    assert json.loads(report) == {
        "name": "Own",
        "unit": "Count",
        "value": 3.0,
        "dimensions": {"Color": "red"},
        "kind": "counter",
        "type": "counter",
        "host": "h",
        "requests": "id1",
    }
    assert lines == []


@pytest.mark.parametrize("line", ["[METRICS]no metric", "see [METRICS]Own.Count:3|#|#hostname:h,1", "plain"])
def test_every_other_line_stays_one(
    printed: PrintedMetrics, reports: list[tuple[Printer, bytes]], lines: list[tuple[str, str]], line: str
) -> None:
    printed("m:1.0#9000", line)

    assert (reports, lines) == ([], [("m:1.0#9000", line)])
