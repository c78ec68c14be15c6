"""Definitions of metrics, and what is said of files that define none."""

from pathlib import Path

import pytest

from marserve.errors import ConfigError
from marserve.metrics.definitions import SHIPPED, Definition, read_definitions

TORCHSERVE = {
    "counter": "Requests2XX Requests4XX Requests5XX ts_inference_requests_total ts_inference_latency_microseconds "
    "ts_queue_latency_microseconds",
    "gauge": "QueueTime WorkerThreadTime WorkerLoadTime CPUUtilization MemoryUsed MemoryAvailable MemoryUtilization "
    "DiskUsage DiskUtilization DiskAvailable GPUMemoryUtilization GPUMemoryUsed GPUUtilization",
}


def test_the_shipped_file_defines_torchserves_default_set() -> None:
    defined = read_definitions(SHIPPED["torchserve"])

    for kind, names in TORCHSERVE.items():
        assert {name for name, row in defined.of_server.items() if row.kind == kind} == set(names.split())
    assert set(defined.of_models) == {"HandlerTime", "PredictionTime"}
    load = defined.of_server["WorkerLoadTime"]
    assert load == Definition("WorkerLoadTime", "gauge", "Milliseconds", ("WorkerName", "Level", "Hostname"))


def test_the_shipped_file_of_mms_can_be_read() -> None:
    assert "Requests5XX" in read_definitions(SHIPPED["mms"]).of_server


def test_anchors_and_all_three_kinds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(
        "dimensions: [&a 'A', &b B]\n"
        "ts_metrics:\n"
        "  counter: [{name: C, unit: Count, dimensions: [*a]}]\n"
        "  gauge:\n"
        "model_metrics:\n"
        "  histogram: [{name: H, unit: ms, dimensions: [*a, *b]}]\n"
        "  gauge: [{name: G, unit: percent}]\n"
    )

    defined = read_definitions(path)

    assert defined.of_server == {"C": Definition("C", "counter", "Count", ("A",))}
    assert defined.of_models["H"] == Definition("H", "histogram", "ms", ("A", "B"))
    assert defined.of_models["G"].dimensions == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "is no YAML"),
        ("- a", "the file is no mapping"),
        ("ts_metrics: 3", "ts_metrics is no mapping"),
        ("ts_metrics: {timer: []}", "the kind timer"),
        ("ts_metrics: {gauge: {name: X}}", "ts_metrics.gauge is no list"),
        ("model_metrics: {gauge: [{unit: ms}]}", "an entry of model_metrics.gauge has no name"),
        ("model_metrics: {gauge: [{name: X}]}", "model_metrics.gauge.X has no unit"),
        ("model_metrics: {gauge: [{name: X, unit: ms, dimensions: A}]}", "X has no list of dimensions"),
        ("ts_metrics: {gauge: [{name: X, unit: a}], counter: [{name: X, unit: a}]}", "ts_metrics has X twice"),
    ],
)
def test_what_defines_no_metrics_is_told_with_its_place(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=str(path)) as told:
        read_definitions(path)

    assert why in told.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        read_definitions(tmp_path / "none.yaml")
