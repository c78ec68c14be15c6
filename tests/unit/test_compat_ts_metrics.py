"""The metrics of TorchServe's handlers: declared in code or in a file, as objects of every age, with dimensions."""

import io
import json
import logging
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
from ts_modules import context_of, module

from marserve.service import metrics
from marserve.service.metrics import MetricsStore, use_store

Dimension = module("metrics.dimension").Dimension
Metric = module("metrics.metric").Metric
MetricTypes = module("metrics.metric_type_enum").MetricTypes
errors = module("metrics.metric_cache_errors")

#: Beyond the highest number that Linux gives a process.
NO_PID = 2**22 + 1


@pytest.fixture
def store(monkeypatch):
    """The store of this process's service, for the length of a test."""
    monkeypatch.setattr(metrics, "_stores", [])
    found = MetricsStore({0: "r0"}, "m")
    use_store(found)
    return found


def reports(store):
    return [(r.name, r.value, r.unit, r.kind, r.dimensions) for r in store.store]


def test_a_metric_that_a_handler_declares(tmp_path):
    cache = context_of(tmp_path).metrics

    declared = cache.add_metric_to_cache("Images", "count", ["Model", "Size"], MetricTypes.HISTOGRAM)
    declared.add_or_update(3, ["m", "big"])

    assert cache.get_metric("Images", MetricTypes.HISTOGRAM) is declared
    assert cache.cache[MetricTypes.HISTOGRAM]["Images"] is declared
    assert "histogram:Images" in cache.cache_keys()
    assert declared.metric_type is MetricTypes.HISTOGRAM
    assert reports(cache) == [("Images", 3.0, "Count", "histogram", {"Model": "m", "Size": "big"})]
    with pytest.raises(errors.MetricsCacheKeyError):
        cache.get_metric("Images", MetricTypes.GAUGE)


def test_dimensions_are_objects_with_a_name_and_a_value(tmp_path):
    cache = context_of(tmp_path).metrics

    cache.add_counter("Calls", 1, dimensions=[Dimension("Stage", "load")])

    named = {"ModelName": "m", "Level": "Model", "Stage": "load"}
    assert reports(cache) == [("Calls", 1.0, "Count", "counter", named)]
    assert str(Dimension("a", 1)) == "a:1"


def test_a_metric_that_is_made_alone_reports_to_the_service_of_the_process(store):
    module("metrics.caching_metric").CachingMetric("A", "ms", ["D"], MetricTypes.GAUGE).add_or_update(1, ["x"])

    assert reports(store) == [("A", 1.0, "Milliseconds", "gauge", {"D": "x"})]


def test_metrics_of_old_handlers_are_reported_when_they_are_emitted(store):
    metric = Metric("Faces", 2, "count", [Dimension("D", "x")], "r0")
    assert reports(store) == []

    module("service").emit_metrics([metric])
    metric.update(5)
    metric.reset()

    assert [(each.value, each.request) for each in store.store] == [(2.0, "r0"), (5.0, "r0"), (0.0, "r0")]
    assert str(metric).startswith("Faces.Count:2|#D:x|#hostname:")
    assert str(metric).endswith(",r0")


def test_metrics_as_json():
    text = json.dumps(
        Metric("Faces", 2, "ms", [Dimension("D", "x")]), cls=module("metrics.metric_encoder").MetricEncoder
    )

    found = json.loads(text)
    assert (found["MetricName"], found["Value"], found["Unit"]) == ("Faces", 2, "Milliseconds")
    assert found["Dimensions"] == [{"Name": "D", "Value": "x"}]


DEFINITIONS = """
dimensions:
  - &name "ModelName"
model_metrics:
  counter:
    - name: Calls
      unit: count
      dimensions: [*name]
  gauge:
    - name: Heat
      unit: C
      dimensions: []
"""


def cache_of(tmp_path, text):
    (tmp_path / "metrics.yaml").write_text(text)
    return module("metrics.metric_cache_yaml_impl").MetricsCacheYamlImpl(str(tmp_path / "metrics.yaml"))


def test_metrics_that_a_file_declares(tmp_path):
    cache = cache_of(tmp_path, DEFINITIONS)
    cache.initialize_cache()

    assert cache.cache_keys() == ["counter:Calls", "gauge:Heat"]
    cache.get_metric("Calls").add_or_update(1, ["m"])
    assert reports(cache) == [("Calls", 1.0, "Count", "counter", {"ModelName": "m"})]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", errors.MetricsCachePyYamlError),
        ("- a", errors.GeneralMetricsCacheError),
        ("a: 1", errors.MetricsCacheKeyError),
        ("model_metrics:", errors.MetricsCacheValueError),
        ("model_metrics: {sum: []}", errors.MetricsCacheKeyError),
        ("model_metrics: {gauge: [{name: a, unit: b}]}", errors.MetricsCacheKeyError),
    ],
)
def test_a_file_that_declares_nothing_usable_is_refused(tmp_path, text, error):
    with pytest.raises(error):
        cache_of(tmp_path, text).initialize_cache()


def test_no_file_is_refused(tmp_path):
    cache = module("metrics.metric_cache_yaml_impl").MetricsCacheYamlImpl
    with pytest.raises(errors.MetricsCacheIOError):
        cache(str(tmp_path / "none.yaml"))
    with pytest.raises(errors.MetricsCacheTypeError):
        cache("")


@pytest.fixture
def measured(monkeypatch):
    found = module("metrics.system_metrics")
    monkeypatch.setattr(found, "system_metrics", [])
    return found


def test_the_measures_of_the_host(measured, caplog):
    caplog.set_level(logging.INFO)

    measured.collect_all(measured, 0)

    assert {metric.name for metric in measured.system_metrics} == {
        "CPUUtilization",
        "MemoryUsed",
        "MemoryAvailable",
        "MemoryUtilization",
        "DiskUsage",
        "DiskUtilization",
        "DiskAvailable",
    }
    assert "MemoryUsed.Megabytes:" in caplog.text


def test_the_measures_of_a_gpu(measured, monkeypatch):
    library = ModuleType("pynvml")
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetCount = lambda: 1
    library.nvmlDeviceGetHandleByIndex = lambda index: index
    library.nvmlDeviceGetMemoryInfo = lambda device: SimpleNamespace(used=2 * 1024**2, total=8 * 1024**2)
    library.nvmlDeviceGetUtilizationRates = lambda device: SimpleNamespace(gpu=40)
    monkeypatch.setitem(sys.modules, "pynvml", library)

    measured.gpu_utilization(1)

    assert [(metric.name, metric.value) for metric in measured.system_metrics] == [
        ("GPUMemoryUtilization", 25.0),
        ("GPUMemoryUsed", 2.0),
        ("GPUUtilization", 40),
    ]
    assert measured.system_metrics[0].dimension_values == ["Host", 0]


def test_the_memory_of_processes(caplog):
    caplog.set_level(logging.INFO)

    module("metrics.process_memory_metric").check_process_mem_usage(io.StringIO(f"{os.getpid()},,{NO_PID}\n"))

    own, absent, zero = [record.getMessage() for record in caplog.records]
    assert int(own.partition(":")[2]) > 1_000_000
    assert "cannot be told" in absent
    assert zero == f"{NO_PID}:0"
