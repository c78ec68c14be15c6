"""What is counted in an old server's way: jobs, other answers, reports, workers, the host; in three modes."""

import json
import logging
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from metrics_fakes import VERSION, Version, ended

from marserve import logs
from marserve.batching.job import JobKind
from marserve.errors import Cancelled, HandlerFault, QueueFull, VersionNotFound, about
from marserve.metrics import tally as tallying
from marserve.metrics.collector import Collector
from marserve.metrics.definitions import SHIPPED, read_definitions
from marserve.metrics.exposition import pieces
from marserve.metrics.lines import MetricLine
from marserve.metrics.system import HostValue
from marserve.metrics.tally import LEGACY, LOG, PROMETHEUS, Tally, mms_number

PREFIX = "5b9d8a3e-4b1c-4c0e-9d7a-"


def make(mode: str = PROMETHEUS, takes_all: bool = False, file: str = "torchserve", **more: object) -> Collector:
    tally = Tally(
        read_definitions(SHIPPED[file]),
        mode,
        takes_all=takes_all,
        host="h",
        id_prefix=PREFIX,
        **more,  # type: ignore[arg-type]
    )
    return Collector(tally=tally)


def report(name: str, value: float, kind: str = "gauge", unit: str = "Count", **dimensions: str) -> bytes:
    told = {"name": name, "value": value, "unit": unit, "type": kind, "dimensions": dimensions, "requests": "id1,id2"}
    return json.dumps(told).encode() + b"\n"


def exposed(collector: Collector, *names: str) -> list[str]:
    """Return the samples on the metrics address."""
    while collector.flush():
        pass
    text = b"".join(pieces(collector, (), names)).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


@dataclass
class Lines:
    """What has been written for the two logs of metrics."""

    caplog: pytest.LogCaptureFixture

    def of(self, name: str) -> list[str]:
        found = [record.getMessage() for record in self.caplog.records if record.name == name]
        return "\n".join(found).splitlines()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Lines:
    monkeypatch.setattr(tallying, "time", lambda: 1700000000.9)
    for name in (logs.SERVER_METRICS, logs.MODEL_METRICS):
        caplog.set_level(logging.INFO, name)
    return Lines(caplog)


def good(**more: object) -> object:
    """Return a job with an answer 200: 1/512 s in the queue, 1/64 s in all, 6 ms of them in the three steps."""
    seconds = [0.001, 0.001, 0.001, 0.003, 0.002, 0.001]
    spans = tuple(seconds)  # a new one each, as of batches of one
    return ended(**{"arrived": 1.0, "sent": 1.0 + 1 / 512, "done": 1.0 + 1 / 64, "spans": spans, **more})  # type: ignore[arg-type]


def test_a_good_request_counts_in_every_metric_of_the_set(lines: Lines) -> None:
    collector = make()
    collector.jobs_ended([good()])

    assert exposed(collector) == [
        'Requests2XX{Level="Host",Hostname="h",} 1.0',
        'ts_inference_requests_total{model_name="m",model_version="default",hostname="h",} 1.0',
        'ts_inference_latency_microseconds{model_name="m",model_version="default",hostname="h",} 15625.0',
        'ts_queue_latency_microseconds{model_name="m",model_version="default",hostname="h",} 1953.125',
        'QueueTime{Level="Host",Hostname="h",} 1.0',
        'WorkerThreadTime{Level="Host",Hostname="h",} 4.0',
        'PredictionTime{ModelName="m",Level="Model",Hostname="h",} 6.0',
    ]
    assert lines.caplog.records == []


def test_in_the_mode_log_the_same_becomes_lines_and_nothing_is_exposed(lines: Lines) -> None:
    collector = make(LOG)
    collector.jobs_ended([good()])

    assert exposed(collector) == []
    end = "|#hostname:h,timestamp:1700000000"
    asked = f"|#model_name:m,model_version:default{end}"
    assert lines.of(logs.SERVER_METRICS) == [
        f"ts_inference_requests_total.Count:1.0{asked}",
        f"Requests2XX.Count:1.0|#Level:Host{end}",
        f"ts_inference_latency_microseconds.Microseconds:15625.0{asked}",
        f"ts_queue_latency_microseconds.Microseconds:1953.1{asked}",
        f"QueueTime.Milliseconds:1.0|#Level:Host{end}",
        f"WorkerThreadTime.Milliseconds:4.0|#Level:Host{end}",
    ]
    assert lines.of(logs.MODEL_METRICS) == [
        f"PredictionTime.ms:6.0|#ModelName:m,Level:Model|#hostname:h,requestID:{PREFIX}000000000001"
        ",timestamp:1700000000"
    ]


def test_in_the_mode_legacy_the_three_counters_are_exposed_and_the_rest_becomes_lines(lines: Lines) -> None:
    collector = make(LEGACY)
    collector.jobs_ended([good()])

    names = {line.partition("{")[0] for line in exposed(collector)}

    assert names == set(tallying.LEGACY_NAMES)
    logged = {line.partition(".")[0] for line in lines.of(logs.SERVER_METRICS)}
    assert logged == {"Requests2XX", "QueueTime", "WorkerThreadTime"}
    assert len(lines.of(logs.MODEL_METRICS)) == 1


def test_a_template_of_lines_does_not_outlive_its_second(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = make(LOG)
    collector.jobs_ended([good()])
    collector.flush()
    monkeypatch.setattr(tallying, "time", lambda: 1700000001.0)
    collector.jobs_ended([good()])
    collector.flush()

    stamps = [line.rpartition(":")[2] for line in lines.of(logs.SERVER_METRICS)]

    assert stamps == ["1700000000"] * 6 + ["1700000001"] * 6


def test_the_version_is_that_which_the_request_named() -> None:
    collector = make()
    job = good()
    job.asked_version = "1.0"  # type: ignore[attr-defined]
    collector.jobs_ended([job])

    (sample,) = exposed(collector, "ts_inference_requests_total")

    assert sample == 'ts_inference_requests_total{model_name="m",model_version="1.0",hostname="h",} 1.0'


def test_an_error_counts_as_a_request_and_by_its_status_without_times() -> None:
    collector = make()
    for status in (503, 400, 304):
        collector.jobs_ended([ended(status=status, error=HandlerFault("failed"), spans=())])
    collector.jobs_ended([ended(status=0, error=Cancelled("gone"), spans=())])

    assert exposed(collector) == [
        'Requests4XX{Level="Host",Hostname="h",} 1.0',
        'Requests5XX{Level="Host",Hostname="h",} 2.0',
        'ts_inference_requests_total{model_name="m",model_version="default",hostname="h",} 4.0',
    ]


def test_an_answer_with_a_status_that_its_service_chose_has_times_like_any_other(lines: Lines) -> None:
    collector, logging = make(), make(LOG)
    collector.jobs_ended([good(status=404), good(status=302)])
    logging.jobs_ended([good(status=599)])
    logging.flush()

    assert exposed(collector)[:6] == [
        'Requests4XX{Level="Host",Hostname="h",} 1.0',
        'Requests5XX{Level="Host",Hostname="h",} 1.0',
        'ts_inference_requests_total{model_name="m",model_version="default",hostname="h",} 2.0',
        'ts_inference_latency_microseconds{model_name="m",model_version="default",hostname="h",} 31250.0',
        'ts_queue_latency_microseconds{model_name="m",model_version="default",hostname="h",} 3906.25',
        'QueueTime{Level="Host",Hostname="h",} 1.0',
    ]
    names = [line.partition("|")[0] for line in lines.of(logs.SERVER_METRICS)]
    assert names[2:5] == [
        "ts_inference_latency_microseconds.Microseconds:15625.0",
        "ts_queue_latency_microseconds.Microseconds:1953.125",
        "QueueTime.Milliseconds:1.0",
    ]


def test_every_other_answer_counts_once_and_one_that_a_version_refused_is_a_request_for_it() -> None:
    collector = make()
    collector.request_answered(("192.0.2.7", 1), "GET", "/ping", 200, 0.1)
    collector.request_answered(("192.0.2.7", 1), "GET", "/nope", 404, 0.1)
    for target, error in (
        ("/predictions/m", about(QueueFull("full"), "m", "1.0")),
        ("/predictions/m/1.0?x=1", about(QueueFull("full"), "m", "1.0")),
        ("/predictions/m/9", about(VersionNotFound("none"), "m", "9")),
    ):
        collector.request_answered(("192.0.2.7", 1), "POST", target, 503, 0.1, error)

    assert exposed(collector) == [
        'Requests2XX{Level="Host",Hostname="h",} 1.0',
        'Requests4XX{Level="Host",Hostname="h",} 1.0',
        'Requests5XX{Level="Host",Hostname="h",} 3.0',
        'ts_inference_requests_total{model_name="m",model_version="default",hostname="h",} 1.0',
        'ts_inference_requests_total{model_name="m",model_version="1.0",hostname="h",} 1.0',
    ]


def test_a_batch_counts_once_in_what_is_the_batchs() -> None:
    collector = make(LOG)
    spans = tuple([0.001] * 6)
    failed = tuple([0.002] * 6)
    overlapping = tuple([1.0] * 6)
    seen: list[str] = []
    logger = logging.getLogger(logs.MODEL_METRICS)
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for _ in range(3):
        collector.jobs_ended([good(spans=spans)])
    collector.jobs_ended([good(spans=failed, error=Cancelled("gone"))])
    collector.jobs_ended([good(spans=overlapping)])
    collector.flush()
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)

    ids = f"{PREFIX}000000000001"
    values = [line.partition("|")[0] for line in "\n".join(seen).splitlines()]
    assert values == ["PredictionTime.ms:3.0", "PredictionTime.ms:13.67"], "no more than there was"
    assert f"requestID:{ids},{ids},{ids},timestamp:" in seen[0]


def test_a_description_is_no_request() -> None:
    collector = make()
    job = good()
    job.kind = JobKind.DESCRIBE  # type: ignore[attr-defined]
    collector.jobs_ended([job])

    assert exposed(collector, "Requests2XX", "ts_inference_requests_total") == []


def worker(state: str, number: int = 9000) -> SimpleNamespace:
    return SimpleNamespace(name=f"m:1.0#{number}", number=number, state=state, born=10.0, ready_at=11.334)


def test_a_worker_tells_how_long_it_took_to_load_until_it_ends() -> None:
    collector = make()
    for state in ("starting", "ready"):
        collector.worker_changed(worker(state))

    (sample,) = exposed(collector, "WorkerLoadTime")
    assert sample == 'WorkerLoadTime{WorkerName="W-9000-m_1.0",Level="Host",Hostname="h",} 1334.0'

    collector.worker_changed(worker("died"))
    assert exposed(collector, "WorkerLoadTime") == []


def test_the_host_is_told_with_its_gpus() -> None:
    collector = make()
    assert collector.tally is not None
    collector.tally.host_read([HostValue("CPUUtilization", 12.5), HostValue("GPUUtilization", 3.0, "1")])

    assert exposed(collector) == [
        'CPUUtilization{Level="Host",Hostname="h",} 12.5',
        'GPUUtilization{Level="Host",DeviceId="1",Hostname="h",} 3.0',
    ]


def test_what_a_command_tells_of_the_host_is_kept_where_it_is_declared(caplog: pytest.LogCaptureFixture) -> None:
    collector = make()
    assert collector.tally is not None
    one = MetricLine("CPUUtilization", "Percent", 12.5, {"Level": "Host"}, "", "there", "")
    for _ in range(2):
        collector.tally.host_told([one, one._replace(name="Own"), one._replace(dimensions={})])

    assert exposed(collector) == ['CPUUtilization{Level="Host",Hostname="there",} 12.5']
    assert [record.getMessage() for record in caplog.records] == [
        "The system_metrics_cmd prints Own with 1 dimensions, which metrics_config does not declare: it is dropped.",
        "The system_metrics_cmd prints CPUUtilization with 0 dimensions, which metrics_config does not declare with "
        "Level, Hostname: it is dropped.",
    ]


def test_what_is_printed_names_its_host() -> None:
    collector = make()
    told = {**json.loads(report("HandlerTime", 1.0, ModelName="m", Level="Model")), "host": "there"}
    collector.metrics_reported(VERSION, json.dumps(told).encode())

    assert exposed(collector) == ['HandlerTime{ModelName="m",Level="Model",Hostname="there",} 1.0']


def test_reports_that_are_declared_are_kept_and_others_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    collector = make()
    for _ in range(2):
        collector.metrics_reported(VERSION, report("HandlerTime", 1.25, ModelName="m", Level="Model"))
        collector.metrics_reported(VERSION, report("MyCount", 2, "counter", ModelName="m"))

    assert exposed(collector) == ['HandlerTime{ModelName="m",Level="Model",Hostname="h",} 1.25']
    (told,) = [record.getMessage() for record in caplog.records if "MyCount" in record.getMessage()]
    assert "model_metrics_auto_detect=true" in told


def test_with_auto_detection_everything_is_kept() -> None:
    collector = make(takes_all=True)
    for _ in range(2):
        collector.metrics_reported(VERSION, report("MyCount", 2, "counter", ModelName="m", Level="Model"))
        collector.metrics_reported(VERSION, report("MyHist", 3.5, "histogram", A="x"))

    samples = exposed(collector)

    assert samples[0] == 'MyCount{ModelName="m",Level="Model",Hostname="h",} 4.0'
    assert 'MyHist_bucket{A="x",Hostname="h",le="5.0",} 2.0' in samples
    assert samples[-1] == 'MyHist_sum{A="x",Hostname="h",} 7.0'


def test_a_report_becomes_a_line_with_its_requests_and_the_declared_unit(lines: Lines) -> None:
    collector = make(LOG)
    collector.metrics_reported(
        VERSION, report("HandlerTime", 1.25, unit="Milliseconds", ModelName="m", Level="Model")
    )
    collector.flush()

    assert lines.of(logs.MODEL_METRICS) == [
        "HandlerTime.ms:1.25|#ModelName:m,Level:Model|#hostname:h,requestID:id1,id2,timestamp:1700000000"
    ]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (b"no json\n", "cannot be read"),
        (report("HandlerTime", 1.0, ModelName="m"), "not ModelName, Level"),
        (report("MyCount", -1, "counter"), "counters only rise"),
        (report("MyTimer", 1, "timer"), "no kind of metric"),
    ],
)
def test_what_cannot_be_kept_is_told(caplog: pytest.LogCaptureFixture, told: bytes, why: str) -> None:
    collector = make(takes_all=True)
    collector.metrics_reported(VERSION, told)

    assert exposed(collector) == []
    assert why in caplog.text


def test_dimensions_of_other_names_count_by_their_place() -> None:
    collector = make()
    collector.metrics_reported(VERSION, report("HandlerTime", 1.0, Model="m", Where="here"))

    assert exposed(collector) == ['HandlerTime{ModelName="m",Level="here",Hostname="h",} 1.0']


def test_label_sets_are_kept_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    collector = make(takes_all=True)
    for number in range(250):
        collector.metrics_reported(VERSION, report("PerRequest", 1.0, Request=str(number)))

    assert len(exposed(collector)) == 200
    assert "more than 200 different dimensions" in caplog.text


def test_a_model_that_is_gone_is_told_once_more_and_then_forgotten() -> None:
    collector = make()
    for name in ("m", "n"):
        collector.jobs_ended([good(version=Version(name=name))])
    before = exposed(collector, "ts_inference_requests_total", "PredictionTime")

    collector.forget(keep={("n", "1.0")})

    after = exposed(collector, "ts_inference_requests_total", "PredictionTime")
    assert (len(before), len(after)) == (4, 2)
    assert all('"n"' in sample for sample in after)


def test_a_metric_that_is_not_defined_is_not_counted(tmp_path) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text("ts_metrics: {gauge: [{name: QueueTime, unit: s, dimensions: [ModelName, Other]}]}")
    collector = Collector(tally=Tally(read_definitions(path), PROMETHEUS, takes_all=False, host="h", id_prefix=""))
    collector.jobs_ended([good()])

    assert exposed(collector) == ['QueueTime{ModelName="",Other="",} 1.0']


def test_mms_logs_whole_numbers_as_such_and_keeps_our_metrics_on_their_address(lines: Lines) -> None:
    collector = make(LOG, takes_all=True, file="mms", number=mms_number, replaces_ours=False)
    collector.jobs_ended([good()])
    collector.metrics_reported(VERSION, report("Any", 2.0, "counter", ModelName="m"))

    assert any(sample.startswith("marserve_requests_total") for sample in exposed(collector))
    assert lines.of(logs.SERVER_METRICS) == ["Requests2XX.Count:1|#Level:Host|#hostname:h,timestamp:1700000000"]
    assert lines.of(logs.MODEL_METRICS)[1].startswith("Any.Count:2|#ModelName:m|#hostname:h,requestID:id1,id2,")


def test_access_lines_are_those_of_the_old_servers(caplog: pytest.LogCaptureFixture) -> None:
    collector = make()
    collector.has_access_log = True
    collector.jobs_ended([good(target=b"/predictions/m?x=1")])
    collector.request_answered(("192.0.2.8", 99), "GET", "/ping", 200, 0.0034)
    collector.request_answered("", "GET", "/ping", 200, 0.0)

    with caplog.at_level(logging.INFO, logs.ACCESS):
        collector.stop()

    (record,) = [record for record in caplog.records if record.name == logs.ACCESS]
    assert record.getMessage().splitlines() == [
        '/192.0.2.7:4242 "POST /predictions/m?x=1 HTTP/1.1" 200 15',
        '/192.0.2.8:99 "GET /ping HTTP/1.1" 200 3',
        '- "GET /ping HTTP/1.1" 200 0',
    ]
