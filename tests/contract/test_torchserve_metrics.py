"""TorchServe's metrics and log files in its three modes, asked of whatever the ``torchserve`` command starts."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pairs

HANDLER = """
class Service:
    initialized = False

    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        metrics = context.metrics
        metrics.add_counter("InferenceRequestCount", len(data))
        metrics.add_time("HandlerTime", 1.25, None, "ms")
        print("a line of the handler")
        return ["ok"] * len(data)
"""
HOST = r'\{Level="Host",Hostname=".+",\} \d+\.\d+'
COUNTED = {
    "Requests2XX": ("counter", "Count", HOST),
    "ts_inference_requests_total": (
        "counter",
        "Count",
        r'\{model_name="counted",model_version="default",hostname=".+",\} \d+\.\d+',
    ),
    "ts_inference_latency_microseconds": (
        "counter",
        "Microseconds",
        r'\{model_name="counted",model_version="default",hostname=".+",\} \d+\.\d+',
    ),
    "ts_queue_latency_microseconds": (
        "counter",
        "Microseconds",
        r'\{model_name="counted",model_version="default",hostname=".+",\} \d+\.\d+',
    ),
    "QueueTime": ("gauge", "Milliseconds", HOST),
    "WorkerThreadTime": ("gauge", "Milliseconds", HOST),
    "WorkerLoadTime": (
        "gauge",
        "Milliseconds",
        r'\{WorkerName="W-\d+-counted_1\.0",Level="Host",Hostname=".+",\} \d+\.\d+',
    ),
    "PredictionTime": ("gauge", "ms", r'\{ModelName="counted",Level="Model",Hostname=".+",\} \d+\.\d+'),
    "HandlerTime": ("gauge", "ms", r'\{ModelName="counted",Level="Model",Hostname=".+",\} \d+\.\d+'),
}
SYSTEM = {
    "CPUUtilization": "Percent",
    "MemoryUsed": "Megabytes",
    "MemoryAvailable": "Megabytes",
    "MemoryUtilization": "Percent",
    "DiskUsage": "Gigabytes",
    "DiskUtilization": "Percent",
    "DiskAvailable": "Gigabytes",
}
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
STAMP = r"#hostname:[^,|]+,timestamp:\d+"
ASKED = r"\|#model_name:counted,model_version:default\|"
SERVER_LINES = {
    "Requests2XX": rf"{MOMENT} - Requests2XX\.Count:1\.0\|#Level:Host\|{STAMP}",
    "Requests4XX": rf"{MOMENT} - Requests4XX\.Count:1\.0\|#Level:Host\|{STAMP}",
    "QueueTime": rf"{MOMENT} - QueueTime\.Milliseconds:\d+\.0\|#Level:Host\|{STAMP}",
    "WorkerThreadTime": rf"{MOMENT} - WorkerThreadTime\.Milliseconds:\d+\.0\|#Level:Host\|{STAMP}",
    "WorkerLoadTime": rf"{MOMENT} - WorkerLoadTime\.Milliseconds:\d+\.0"
    rf"\|#WorkerName:W-\d+-counted_1\.0,Level:Host\|{STAMP}",
}
COUNTER_LINES = {
    "ts_inference_requests_total": rf"{MOMENT} - ts_inference_requests_total\.Count:1\.0{ASKED}{STAMP}",
    "ts_inference_latency_microseconds": rf"{MOMENT} - ts_inference_latency_microseconds\.Microseconds:"
    rf"\d+\.\d+{ASKED}{STAMP}",
    "ts_queue_latency_microseconds": rf"{MOMENT} - ts_queue_latency_microseconds\.Microseconds:"
    rf"\d+\.\d+{ASKED}{STAMP}",
}
MODEL_LINE = (
    rf"{MOMENT} - (HandlerTime|PredictionTime)\.ms:\d+\.\d+\|#ModelName:counted,Level:Model\|"
    r"#hostname:[^,|]+,requestID:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12},timestamp:\d+"
)
ACCESS_LINE = rf'{MOMENT} - /127\.0\.0\.1:\d+ "GET /nosuch\?a=b HTTP/1\.1" 404 \d+'


@contextmanager
def asked(mode: str, **settings: str) -> Iterator[pairs.Server]:
    """Run a server in a mode, with a prediction of the model ``counted`` and an answer 404 behind it."""
    with pairs.serving({"metrics_mode": mode, "disable_system_metrics": "false", **settings}) as server:
        with zipfile.ZipFile(server.folder / "store" / "counted.mar", "w") as archive:
            archive.writestr("service.py", HANDLER)
            model = {"modelName": "counted", "handler": "service.py", "modelVersion": "1.0"}
            manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        target = "/models?url=counted.mar&initial_workers=1"
        assert server.ask({"door": "management", "method": "POST", "target": target})["status"] == 200, server.log
        predict = {"door": "inference", "method": "POST", "target": "/predictions/counted", "body": "x"}
        assert server.ask(predict)["status"] == 200, server.log
        assert server.ask({"door": "inference", "target": "/nosuch?a=b"})["status"] == 404
        yield server


def metrics(server: pairs.Server, query: str = "") -> list[str]:
    """Return the lines of the metrics address."""
    answer = server.ask({"door": "metrics", "target": f"/metrics{query}"})
    assert answer["status"] == 200
    assert answer["headers"]["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return [line for line in answer["body"] if line]


def samples(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("#")]


def log(server: pairs.Server, name: str) -> str:
    """Return what is in a log file."""
    return (server.folder / name).read_text()


def logged(server: pairs.Server, name: str, pattern: str) -> bool:
    return re.search(f"^{pattern}$", log(server, name), re.MULTILINE) is not None


@pytest.mark.row("L1", "L2", "L3", "L7", "L8")
def test_prometheus_exposes_the_whole_set_and_logs_none_of_it() -> None:
    with asked("prometheus", model_metrics_auto_detect="true") as server:
        pairs.until("the host has been read", lambda: any("DiskAvailable{" in line for line in metrics(server)))
        pairs.until("the worker's metrics are there", lambda: any("HandlerTime{" in line for line in metrics(server)))
        lines = metrics(server)
        wanted = COUNTED | {name: ("gauge", unit, HOST) for name, unit in SYSTEM.items()}
        for name, (kind, unit, pattern) in wanted.items():
            assert lines.count(f"# TYPE {name} {kind}") == 1
            assert lines.count(f"# HELP {name} Torchserve prometheus {kind} metric with unit: {unit}") == 1
            found = [line for line in samples(lines) if re.fullmatch(name + pattern, line)]
            assert len(found) == 1, (name, lines)
        custom = [line for line in lines if line.startswith("InferenceRequestCount{")]
        assert len(custom) == 1
        assert re.fullmatch(
            r'InferenceRequestCount\{ModelName="counted",Level="Model",Hostname=".+",\} 1\.0', custom[0]
        )
        chosen = metrics(server, "?name[]=Requests4XX&name[]=QueueTime")
        assert {line.partition("{")[0] for line in samples(chosen)} == {"Requests4XX", "QueueTime"}
        assert len(chosen) == 6
        pairs.until("the access line is there", lambda: logged(server, "access_log.log", ACCESS_LINE))
        assert log(server, "ts_metrics.log") == log(server, "model_metrics.log") == ""


@pytest.mark.row("L1", "L3", "L7")
def test_log_exposes_nothing_and_logs_everything() -> None:
    with asked("log") as server:
        for pattern in (*SERVER_LINES.values(), *COUNTER_LINES.values()):
            pairs.until(f"{pattern} is logged", lambda wanted=pattern: logged(server, "ts_metrics.log", wanted))
        for name, unit in SYSTEM.items():
            pattern = rf"{MOMENT} - {name}\.{unit}:\d+\.\d+(E\d+)?\|#Level:Host\|{STAMP}"
            pairs.until(f"{name} is logged", lambda wanted=pattern: logged(server, "ts_metrics.log", wanted))
        pairs.until("the model's metrics are logged", lambda: log(server, "model_metrics.log").count("\n") >= 2)
        assert all(re.fullmatch(MODEL_LINE, line) for line in log(server, "model_metrics.log").splitlines())
        assert metrics(server) == []
        assert "InferenceRequestCount" not in log(server, "model_metrics.log"), "it is not declared"
        line = rf"{MOMENT} \[INFO \] W-\d+-counted_1\.0-stdout MODEL_LOG - a line of the handler"
        for name in ("model_log.log", "ts_log.log", "log"):
            pairs.until(f"the handler's line is in {name}", lambda name=name: logged(server, name, line))
        for name in ("ACCESS_LOG", "TS_METRICS", "MODEL_METRICS"):
            assert re.search(rf"^{MOMENT} \[INFO \] \S+ {name} - ", server.log, re.MULTILINE), name


@pytest.mark.row("L1", "L7")
def test_legacy_exposes_three_counters_and_logs_the_rest() -> None:
    with asked("legacy", disable_system_metrics="true") as server:
        for pattern in SERVER_LINES.values():
            pairs.until(f"{pattern} is logged", lambda wanted=pattern: logged(server, "ts_metrics.log", wanted))
        lines = metrics(server)
        assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == set(COUNTER_LINES)
        assert len(samples(lines)) == 3
        for name in COUNTER_LINES:
            assert f"{name}." not in log(server, "ts_metrics.log")
        for name in SYSTEM:
            assert name not in log(server, "ts_metrics.log"), "the host's metrics are disabled"


def test_a_definition_file_takes_the_place_of_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a metric that the file leaves out there is simply none; the original relies on its own being there.
    monkeypatch.delenv(pairs.TORCHSERVE.variable, raising=False)
    path = tmp_path / "metrics.yaml"
    path.write_text(
        "dimensions: [&model ModelName, &level Level]\n"
        "ts_metrics:\n"
        "  counter: [{name: Requests4XX, unit: Count, dimensions: [*level, Hostname]}]\n"
        "model_metrics:\n"
        "  counter: [{name: InferenceRequestCount, unit: count, dimensions: [*model, *level]}]\n"
    )
    with asked("log", metrics_config=str(path)) as server:
        pattern = rf"{MOMENT} - InferenceRequestCount\.count:1\.0\|#ModelName:counted,Level:Model\|#hostname:.*"
        pairs.until("the declared one is logged", lambda: logged(server, "model_metrics.log", pattern))
        found = SERVER_LINES["Requests4XX"]
        pairs.until("the declared one is logged", lambda: logged(server, "ts_metrics.log", found))
        assert "QueueTime" not in log(server, "ts_metrics.log")
        assert "HandlerTime" not in log(server, "model_metrics.log")
