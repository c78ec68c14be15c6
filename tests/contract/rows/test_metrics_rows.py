"""Rows L: what is measured, under which names and dimensions, and where it is written."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest

from pairs import until
from rows import House, Running

#: In the manner of TorchServe's example of custom metrics: declared, added and updated in every way.
CUSTOM = """
from ts.metrics.dimension import Dimension
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes


class Custom:
    def initialize(self, context):
        metrics = context.metrics
        self.requests = metrics.add_metric_to_cache(
            metric_name="InferenceRequestCount", unit="count", dimension_names=[], metric_type=MetricTypes.COUNTER
        )
        own = [Dimension("ModelName", context.model_name), Dimension("Level", "Model")]
        metrics.add_counter(name="InitializeCallCount", value=1, dimensions=own)
        metrics.add_metric_to_cache("PreprocessCallCount", "count", ["ModelName"], MetricTypes.COUNTER)
        assert metrics.get_metric("HandlerTime", MetricTypes.GAUGE).dimension_names == ["ModelName", "Level"]
        try:
            metrics.get_metric("NeverDeclared", MetricTypes.COUNTER)
        except MetricsCacheKeyError:
            self.initialized = True

    def handle(self, data, context):
        metrics = context.metrics
        rows = [(row.get("body") or b"").decode() for row in data]
        if "fail" in rows:
            raise ValueError("as it was asked")
        self.requests.add_or_update(value=1, dimension_values=[])
        metrics.get_metric("PreprocessCallCount", MetricTypes.COUNTER).add_or_update(1, [context.model_name])
        metrics.add_metric("RequestBatchSize", value=len(data), unit="count", metric_type=MetricTypes.GAUGE)
        for index, row in enumerate(rows):
            metrics.add_size("SizeOfImage", len(row), index, "kB")
        metrics.add_counter("PostprocessCallCount", 1, None, [Dimension("Color", "red")])
        handler_time = metrics.get_metric("HandlerTime", MetricTypes.GAUGE)
        handler_time.add_or_update(12.5, [context.model_name, "Model"], "mine")
        metrics.add_metric("Kindless", value=3, unit="count")
        metrics.get_metric("Kindless", MetricTypes.COUNTER).add_or_update(1, [context.model_name, "Model"])
        metrics.add_time("Waited", 2.5, unit="s")
        metrics.add_percent("Filled", 50)
        metrics.add_error("Faults", 1)
        metrics.add_metric("Spread", 3, "things", metric_type=MetricTypes.HISTOGRAM)
        metrics.add_counter("Falling", -1)
        updated = metrics.add_metric_to_cache("Updated", "MB", ["a"], MetricTypes.GAUGE)
        updated.update(4, "yours", [Dimension("b", "2")])
        updated.add_or_update(5, ["too", "many"])
        return [f"{context.get_request_id(index)}" for index in range(len(data))]
"""
#: A function, which reports nothing itself.
FUNCTION = "def handle(data, context):\n    return None if data is None else ['ok'] * len(data)\n"
TWO_AT_ONCE = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 20000\n"
MODEL = r'\{ModelName="custom",Level="Model",Hostname="[^"]+",\}'
HOST = r'\{Level="Host",Hostname="[^"]+",\}'
ASKED = r'\{model_name="custom",model_version="default",hostname="[^"]+",\}'
#: Type, unit and labels of what is exposed after requests for the model above.
EXPOSED = {
    "Requests2XX": ("counter", "Count", HOST),
    "ts_inference_requests_total": ("counter", "Count", ASKED),
    "ts_inference_latency_microseconds": ("counter", "Microseconds", ASKED),
    "ts_queue_latency_microseconds": ("counter", "Microseconds", ASKED),
    "QueueTime": ("gauge", "Milliseconds", HOST),
    "WorkerThreadTime": ("gauge", "Milliseconds", HOST),
    "WorkerLoadTime": ("gauge", "Milliseconds", r'\{WorkerName="W-\d+-custom_1\.0",Level="Host",Hostname="[^"]+",\}'),
    **{
        name: ("gauge", unit, HOST)
        for unit, names in {
            "Percent": ("CPUUtilization", "MemoryUtilization", "DiskUtilization"),
            "Megabytes": ("MemoryUsed", "MemoryAvailable"),
            "Gigabytes": ("DiskUsage", "DiskAvailable"),
        }.items()
        for name in names
    },
    "HandlerTime": ("gauge", "ms", MODEL),
    "PredictionTime": ("gauge", "ms", MODEL),
    "InferenceRequestCount": ("counter", "Count", r'\{Hostname="[^"]+",\}'),
    "InitializeCallCount": ("counter", "Count", MODEL),
    "PreprocessCallCount": ("counter", "Count", r'\{ModelName="custom",Hostname="[^"]+",\}'),
    "PostprocessCallCount": (
        "counter",
        "Count",
        r'\{Color="red",ModelName="custom",Level="Model",Hostname="[^"]+",\}',
    ),
    "RequestBatchSize": ("gauge", "Count", MODEL),
    "SizeOfImage": ("gauge", "Kilobytes", MODEL),
    "Kindless": ("counter", "Count", MODEL),
    "Waited": ("gauge", "Seconds", MODEL),
    "Filled": ("gauge", "Percent", MODEL),
    "Faults": ("counter", "unit", r'\{Level="Error",Hostname="[^"]+",\}'),
    "Updated": ("gauge", "Megabytes", r'\{b="2",Hostname="[^"]+",\}'),
}
VALUES = {
    "InferenceRequestCount": 1.0,
    "InitializeCallCount": 1.0,
    "PreprocessCallCount": 1.0,
    "PostprocessCallCount": 1.0,
    "RequestBatchSize": 1.0,
    "SizeOfImage": 4.0,
    "Kindless": 4.0,
    "Waited": 2.5,
    "Filled": 50.0,
    "Faults": 1.0,
    "Updated": 4.0,
    "HandlerTime": 12.5,
}
ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def scrape(server: Running, query: str = "") -> list[str]:
    """Return the lines of the metrics address."""
    return server.ask(f"/metrics{query}", door="metrics").text.splitlines()


def has_sample(server: Running, name: str) -> bool:
    return any(line.startswith((f"{name}{{", f"{name}_count{{")) for line in scrape(server))


def samples(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if re.match(rf"{name}[{{ ]", line)]


@pytest.fixture(scope="module")
def exposing(shared_house: House) -> Running:
    """A server in the mode prometheus that takes what is not declared, after one request."""
    shared_house.archive("custom", CUSTOM)
    settings = {
        "metrics_mode": "prometheus",
        "model_metrics_auto_detect": "true",
        "disable_system_metrics": "false",
    }
    server = shared_house.start("custom.mar", settings=settings)
    until("what it reports as it is initialized is exposed", lambda: has_sample(server, "InitializeCallCount"))
    assert server.ask("/predictions/custom", "abcd").status == 200, server.log
    for name in ("Updated", "PredictionTime", "DiskAvailable"):
        until(f"{name} is exposed", lambda wanted=name: has_sample(server, wanted))
    return server


@pytest.mark.row("L1", "L3", "L4", "L7")
def test_the_whole_set_and_a_handlers_own_are_exposed(exposing: Running) -> None:
    lines = scrape(exposing)

    for name, (kind, unit, labels) in EXPOSED.items():
        assert lines.count(f"# TYPE {name} {kind}") == 1, name
        assert lines.count(f"# HELP {name} Torchserve prometheus {kind} metric with unit: {unit}") == 1, name
        (sample,) = samples(lines, name)
        assert re.fullmatch(rf"{name}{labels} \d+\.\d+(E\d+)?", sample), sample
        if name in VALUES:
            assert float(sample.rpartition(" ")[2]) == VALUES[name], sample
    assert not samples(lines, "Falling"), "counters do not fall"


@pytest.mark.row("L2", "L4")
def test_a_histogram_has_the_old_clients_buckets(exposing: Running) -> None:
    lines = [re.sub(r'Hostname="[^"]+"', "", line) for line in scrape(exposing)]
    labels = 'ModelName="custom",Level="Model",,'
    bounds = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, "+Inf")
    buckets = [f'Spread_bucket{{{labels}le="{bound}",}} {float(float(bound) >= 3)}' for bound in bounds]

    begin = lines.index("# TYPE Spread histogram") + 1
    assert lines[begin : begin + 17] == [*buckets, f"Spread_count{{{labels}}} 1.0", f"Spread_sum{{{labels}}} 3.0"]


@pytest.mark.row("L2")
def test_names_choose_what_is_given(exposing: Running) -> None:
    answer = exposing.ask("/metrics?name[]=SizeOfImage&name[]=Spread_sum", door="metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = {re.split(r"[{ ]", line)[0] for line in answer.text.splitlines() if not line.startswith("#")}
    assert names == {"SizeOfImage", "Spread_sum"}


@pytest.fixture
def logging(house: House) -> Running:
    """A server in the mode log that takes what is not declared, with two models that wait for two requests."""
    house.archive("custom", CUSTOM, config=TWO_AT_ONCE)
    house.archive("function", FUNCTION, config=TWO_AT_ONCE)
    return house.start("all", settings={"model_metrics_auto_detect": "true"})


def together(server: Running, model: str, *bodies: str) -> list[str]:
    """Ask at the same time; return what was answered."""
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda body=body: found.append(server.ask(f"/predictions/{model}", body).text))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def reported(path: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Return value with unit, dimensions and requests by name."""
    pattern = r"^\S+ - (\w+)\.(\w+:\S+?)\|#(.*?)\|#hostname:[^,]+,requestID:(.*),timestamp:\d+$"
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, value, dimensions, requests in re.findall(pattern, path.read_text(), re.MULTILINE):
        found.setdefault(name, []).append((value, dimensions, requests))
    return found


@pytest.mark.row("L1", "L4")
def test_each_line_of_a_handlers_metrics_names_the_requests_that_it_is_of(logging: Running) -> None:
    path = logging.house.folder / "logs" / "model_metrics.log"
    together(logging, "custom", "fail", "abcd")  # a batch that fails tells no PredictionTime
    ids = together(logging, "custom", "abcd", "abcd")
    together(logging, "function", "x", "x")
    until("both batches are logged", lambda: len(reported(path).get("PredictionTime", [])) == 2)
    until("the handler's last one is logged", lambda: "Updated" in reported(path))

    found = reported(path)
    both, model = {",".join(ids), ",".join(reversed(ids))}, "ModelName:custom,Level:Model"
    for value, dimensions, requests in found.pop("PredictionTime"):
        assert re.fullmatch(r"ms:\d+\.\d+", value)
        assert re.fullmatch(f"{ID},{ID}", requests)
        assert (dimensions, requests in both) in ((model, True), ("ModelName:function,Level:Model", False))
    assert found.pop("InitializeCallCount")[0][:2] == ("Count:1.0", model)
    sizes = found.pop("SizeOfImage")
    assert [each[:2] for each in sizes] == [("Kilobytes:4.0", model)] * 2
    assert {requests for _, _, requests in sizes} == set(ids)
    kindless = found.pop("Kindless")
    assert [each[:2] for each in kindless] == [("Count:3.0", model), ("Count:1.0", model)]
    assert (kindless[0][2] in both, kindless[1][2]) == (True, "null")
    for name, value in (("RequestBatchSize", "Count:2.0"), ("Waited", "Seconds:2.5"), ("Filled", "Percent:50.0")):
        ((told, dimensions, requests),) = found.pop(name)
        assert (told, dimensions, requests in both) == (value, model, True)
    ((told, dimensions, requests),) = found.pop("PostprocessCallCount")
    assert (told, dimensions, requests in both) == ("Count:1.0", f"Color:red,{model}", True)
    ((told, dimensions, requests),) = found.pop("Spread")
    assert (told, dimensions, requests in both) == ("things:3.0", model, True)
    assert found == {
        "InferenceRequestCount": [("Count:1.0", "", "null")],
        "PreprocessCallCount": [("Count:1.0", "ModelName:custom", "null")],
        "Faults": [("unit:1.0", "Level:Error", "null")],
        "HandlerTime": [("ms:12.5", model, "mine")],
        "Updated": [("Megabytes:4.0", "b:2", "yours")],
    }


DEFINED = """
dimensions:
  - &model ModelName
  - &level Level
  - &hostname Hostname
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [*level, *hostname]}
    - {name: Requests4XX, unit: Count, dimensions: [*level, *hostname]}
    - {name: Requests5XX, unit: Count, dimensions: [*level, *hostname]}
    - {name: ts_inference_requests_total, unit: Count, dimensions: &asked [model_name, model_version, hostname]}
    - {name: ts_inference_latency_microseconds, unit: Microseconds, dimensions: *asked}
    - {name: ts_queue_latency_microseconds, unit: Microseconds, dimensions: *asked}
  histogram:
    - {name: QueueTime, unit: Milliseconds, dimensions: [*level, *hostname]}
  gauge:
    - {name: WorkerThreadTime, unit: Milliseconds, dimensions: [*level, *hostname]}
    - {name: WorkerLoadTime, unit: Milliseconds, dimensions: ["WorkerName", *level, *hostname]}
model_metrics:
  counter:
    - {name: PostprocessCallCount, unit: posts, dimensions: [Color, *model, *level]}
  gauge:
    - {name: HandlerTime, unit: ms, dimensions: [*model, *level]}
    - {name: PredictionTime, unit: ms, dimensions: [*model, *level]}
  histogram:
    - {name: Waited, unit: seconds, dimensions: [*model, *level]}
"""


@pytest.mark.row("L5")
def test_a_file_defines_what_there_is(house: House) -> None:
    declared = 'print("DECLARED", metrics.get_metric("Waited", MetricTypes.HISTOGRAM).dimension_names, flush=True)'
    code = CUSTOM.replace("        try:", f"        {declared}\n        try:", 1)
    house.archive(
        "custom", code.replace('"Waited", 2.5, unit="s"', '"Waited", 2.5, metric_type=MetricTypes.HISTOGRAM')
    )
    path = house.folder / "mine.yaml"
    path.write_text(DEFINED)
    server = house.start("custom.mar", settings={"metrics_mode": "prometheus", "metrics_config": str(path)})
    assert server.ask("/predictions/custom", "abcd").status == 200, server.log
    until("the handler has got what is declared", lambda: "DECLARED ['ModelName', 'Level']" in server.log)
    for name in ("Waited", "PredictionTime"):
        until(f"{name} is exposed", lambda wanted=name: has_sample(server, wanted))

    lines = [re.sub(r'Hostname="[^"]+",', "", line) for line in scrape(server)]

    assert "# HELP PostprocessCallCount Torchserve prometheus counter metric with unit: posts" in lines
    assert 'PostprocessCallCount{Color="red",ModelName="custom",Level="Model",} 1.0' in lines
    assert 'Waited_count{ModelName="custom",Level="Model",} 1.0' in lines
    assert 'QueueTime_count{Level="Host",} 1.0' in lines
    told = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    defined = set(re.findall(r"name: (\w+)", DEFINED))
    assert told == defined, "neither what a handler reports beside it, nor the host's"


FILES = {"access_log.log", "model_log.log", "ts_log.log"}
METRICS_FILES = {"ts_metrics.log", "model_metrics.log"}


@pytest.mark.row("L6", "L8")
def test_the_five_files_lie_where_the_environment_says(house: House) -> None:
    said = "import logging\nlogging.getLogger('mine').warning('loaded')\n"
    house.archive("function", FUNCTION + said)
    places = {"LOG_LOCATION": str(house.folder / "one"), "METRICS_LOCATION": str(house.folder / "two")}
    server = house.start("function.mar", environment=places)
    assert server.ask("/predictions/function?a=b", "x").status == 200

    assert {path.name for path in (house.folder / "one").glob("*.log")} == FILES
    assert {path.name for path in (house.folder / "two").glob("*.log")} == METRICS_FILES
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
    for place, name, line in (
        (
            "one",
            "access_log.log",
            rf'{moment} - /127\.0\.0\.1:\d+ "POST /predictions/function\?a=b HTTP/1\.1" 200 \d+',
        ),
        ("one", "model_log.log", rf"{moment} \[INFO \] W-9\d\d\d-function_1\.0-stdout MODEL_LOG - loaded"),
        ("two", "ts_metrics.log", rf"{moment} - Requests2XX\.Count:1\.0\|#Level:Host\|#hostname:[^,]+,timestamp:\d+"),
        ("two", "model_metrics.log", rf"{moment} - PredictionTime\.ms:.*"),
    ):
        path = house.folder / place / name
        until(f"{name} has its line", lambda path=path, line=line: re.search(f"^{line}$", path.read_text(), re.M))


CHOOSES = """
def handle(data, context):
    if not data or "body" not in data[0]:
        return ["described"]
    context.set_response_status(404, "Not here", 0)
    return ["none"]
"""


@pytest.mark.row("L3", "L8")
def test_a_status_of_the_handlers_choice_and_a_description_are_each_one_request(house: House) -> None:
    house.archive("chooses", CHOOSES)
    server = house.start("chooses.mar")
    assert server.manage("GET", "/models/chooses?customized=true").status == 200
    assert server.ask("/predictions/chooses", "x").status == 404
    with socket.create_connection(("127.0.0.1", server.doors["inference"])) as client:
        client.sendall(b"NO HTTP\r\n\r\n")
        client.settimeout(10)
        assert client.recv(100).startswith(b"HTTP/1.1 400")

    access, metrics = (server.house.folder / "logs" / name for name in ("access_log.log", "ts_metrics.log"))
    until("all are logged", lambda: "/bad-request" in access.read_text())
    told = [re.sub(r"^\S+ - /127\.0\.0\.1:\d+ | \d+$", "", line) for line in access.read_text().splitlines()]
    assert told == [
        '"GET /models/chooses?customized=true HTTP/1.1" 200',
        '"POST /predictions/chooses HTTP/1.1" 404',
        '"GET /bad-request HTTP/1.1" 400',
    ]
    names = re.findall(r" - (\w+)\.", metrics.read_text())
    assert names.count("Requests4XX") == 2
    assert names.count("ts_inference_latency_microseconds") == names.count("QueueTime") == 1


@pytest.mark.row("L6")
def test_a_place_that_cannot_be_written_is_done_without(house: House) -> None:
    house.archive("function", FUNCTION)
    (house.folder / "file").write_text("no folder")
    places = {"LOG_LOCATION": str(house.folder / "file"), "METRICS_LOCATION": str(house.folder / "two")}

    server = house.start("function.mar", environment=places)

    assert server.ask("/predictions/function", "x").status == 200
    assert {path.name for path in (house.folder / "two").glob("*.log")} == METRICS_FILES


PRINTS = """
def handle(data, context):
    if data is None:
        return None
    print("[METRICS]Printed.Count:3|#Color:red,Level:Model|#type:GAUGE|#hostname:there,1700000000,its", flush=True)
    print("[METRICS]this is none", flush=True)
    return ["printed"] * len(data)
"""
#: Tells one metric of the host, one that nobody has declared, and what is not read: it comes after an empty line.
COLLECTOR = """
import sys

assert sys.argv[1:] == ["--with", "words"]
print("CPUUtilization.Percent:42.5|#Level:Host|#hostname:there,1700000000")
print("Unknown.Percent:1|#Level:Host|#hostname:there,1700000000")
print()
print("MemoryUsed.Megabytes:1|#Level:Host|#hostname:there,1700000000")
"""


@pytest.mark.row("L4", "L7")
def test_what_a_handler_and_a_command_print_counts(house: House) -> None:
    house.archive("prints", PRINTS)
    collector = house.folder / "collector.py"
    collector.write_text(COLLECTOR)
    settings = {
        "metrics_mode": "prometheus",
        "model_metrics_auto_detect": "true",
        "disable_system_metrics": "false",
        "system_metrics_cmd": f"{collector}  --with words",
    }
    server = house.start("prints.mar", settings=settings)
    assert server.ask("/predictions/prints", "x").status == 200
    for name in ("Printed", "CPUUtilization"):
        until(f"{name} is exposed", lambda wanted=name: has_sample(server, wanted))

    lines = scrape(server)
    assert samples(lines, "Printed") == ['Printed{Color="red",Level="Model",Hostname="there",} 3.0']
    assert samples(lines, "CPUUtilization") == ['CPUUtilization{Level="Host",Hostname="there",} 42.5']
    assert not samples(lines, "MemoryUsed")
    assert not samples(lines, "Unknown")


@pytest.mark.row("L7")
def test_the_host_is_not_measured_where_that_is_switched_off(house: House) -> None:
    settings = {"metrics_mode": "prometheus", "disable_system_metrics": "true"}
    server = house.start(settings=settings)

    assert not any("CPUUtilization{" in line for line in scrape(server))
