"""The import names of Multi Model Server, and the services that its archives carry copies of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mxnet_stub import Module, mxnet
from ts_modules import imported, reported

from marserve.archive.manifest import read_manifest
from marserve.errors import InvalidData, PredictionException
from marserve.service.context import Context, RequestInfo, RequestProcessor
from marserve.service.metrics import MetricsStore, process_store
from marserve.worker.batch import run_batch
from marserve.worker.loader import load_entry
from marserve.worker.steps import NoSteps

__all__ = ["mxnet"]

SIGNATURE = {"input_type": "image/jpeg", "inputs": [{"data_name": "picture", "data_shape": [0, 3, 2, 2]}]}
#: A picture of the stub: what stands first is the likeliest class.
RED, GREEN = bytes([9, 2, 1]), bytes([1, 9, 2])


def test_they_are_the_classes_that_workers_use() -> None:
    assert imported("mms").__version__ == "1.1.11"
    assert imported("mms.context").Context is Context
    assert imported("mms.context").RequestProcessor is RequestProcessor
    assert imported("mms.service").PredictionException is PredictionException
    assert imported("mms.metrics.metrics_store").MetricsStore is MetricsStore


def test_a_metric_of_ones_own() -> None:
    dimension, metric = imported("mms.metrics.dimension").Dimension, imported("mms.metrics.metric").Metric
    counted = metric("Seen", 1, "count", [dimension("Kind", "a")], "id", "counter")
    timed = metric("Took", 1, "ms", [])

    for each in (counted, timed):
        each.update(2)

    assert (counted.value, timed.value) == (3, 2)
    assert str(counted).startswith("Seen.Count:3|#Kind:a|#hostname:")
    assert str(counted).endswith(",id")
    encoder = imported("mms.metrics.metric_encoder").MetricEncoder
    told = json.loads(json.dumps([timed, counted.dimensions], cls=encoder))
    assert (told[0]["MetricName"], told[0]["Unit"], told[1]) == (
        "Took",
        "Milliseconds",
        [{"Name": "Kind", "Value": "a"}],
    )


def test_metrics_of_ones_own_are_reported() -> None:
    dimension, metric = imported("mms.metrics.dimension").Dimension, imported("mms.metrics.metric").Metric
    process_store().drain()

    imported("mms.service").emit_metrics([metric("Took", 3, "ms", [dimension("Kind", "a")], "id")])

    told = json.loads(process_store().drain())
    assert (told["name"], told["value"], told["dimensions"], told["requests"]) == ("Took", 3.0, {"Kind": "a"}, "id")


@pytest.mark.row("M66")
def test_a_handler_of_release_0_4_reports_its_times(tmp_path: Path) -> None:
    manager = imported("mms.metrics_manager").MetricsManager
    process_store().drain()

    for key, value in (("my_model_LatencyInference", 3), ("my_model_PredictionTotal", 1), ("PingTotal", 1)):
        if key in manager.metrics:
            manager.metrics[key].update(metric=value)

    told = [json.loads(line) for line in process_store().drain().splitlines()]
    assert [(each["name"], each["unit"], each["value"]) for each in told] == [
        ("LatencyInference", "Milliseconds", 3.0),
        ("PredictionTotal", "Count", 1.0),
    ]


@pytest.mark.row("M66")
def test_names_of_release_0_4(tmp_path: Path) -> None:
    module = imported("mms.model_service.model_service")
    (tmp_path / "own.py").write_text(
        "from mms.model_service.model_service import *\n\nclass Own(ModelService): ...\n"
    )

    assert issubclass(module.MultiNodesService, module.ModelService)
    assert issubclass(module.load_service(str(tmp_path / "own.py")).Own, module.ModelService)
    with pytest.raises(Exception, match=r"Error when loading service file: .*gone\.py"):
        module.load_service(str(tmp_path / "gone.py"))
    assert imported("mms.log").get_logger("of 0.4", level="INFO").isEnabledFor(20)


def test_the_host_is_measured(caplog: pytest.LogCaptureFixture) -> None:
    module = imported("mms.metrics.system_metrics")
    module.system_metrics.clear()

    with caplog.at_level("INFO"):
        module.collect_all(module)

    names = {metric.name for metric in module.system_metrics}
    assert names >= {"CPUUtilization", "MemoryUsed", "DiskAvailable"}
    assert "DiskAvailable.Gigabytes:" in caplog.text


def test_the_flags_of_the_command() -> None:
    parser = imported("mms.arg_parser").ArgParser

    assert parser.extract_args(["--models", "a=a.mar", "--mms-config", "x"]).models == ["a=a.mar"]
    assert [parser.str2bool(word) for word in ("Yes", "0")] == [True, False]
    with pytest.raises(NotImplementedError, match="multi-model-server --start"):
        imported("mms.model_service_worker").MXNetModelServiceWorker("unix", "/socket")


def test_a_loader_for_tests_of_handlers(tmp_path: Path) -> None:
    (tmp_path / "service_of_mms.py").write_text(
        "def handle(data, context):\n    return [context.model_name] if data else None\n"
    )
    loader = imported("mms.model_loader").ModelLoaderFactory.get_model_loader(str(tmp_path))

    service = loader.load("named", str(tmp_path), "service_of_mms:handle", None, 1)

    assert service._entry_point([{}], service.context) == ["named"]


def test_time_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert imported("mms.utils.timeit_decorator").timeit(lambda value: value + 1)(1) == 2
    assert "took a total of" in capsys.readouterr().out


def test_sentences() -> None:
    nlp = imported("mms.utils.mxnet.nlp")

    assert nlp.encode_sentences([["a", "b"], ["a"]]) == ([[0, 1], [0]], {"\n": -1, "a": 0, "b": 1})
    assert nlp.encode_sentences([["a", "c"]], {"a": 5})[0] == [[5, -1]]
    assert nlp.encode_sentences([["a", "b"]], invalid_label=0) == ([[1, 2]], {"\n": 0, "a": 1, "b": 2})


@pytest.mark.row("M69")
def test_a_sentence_is_filled_up_to_a_length_of_the_module(mxnet: object) -> None:
    batch = imported("mms.utils.mxnet.nlp").pad_sentence([4, 5, 6], [2, 4, 8], layout="TN")

    assert batch.data[0].asnumpy().tolist() == [[4, 5, 6, -1]]
    assert (batch.bucket_key, batch.provide_data[0].shape) == (4, (4, 1))


@pytest.mark.row("M70")
def test_shapes_are_held_against_the_signature(mxnet: object) -> None:
    check = imported("mms.model_service.mxnet_model_service").check_input_shape
    array = imported("mxnet").nd.array

    check([array([[[[1, 2], [3, 4]]] * 3])], SIGNATURE)
    for given, said in (
        ([], "Input number mismatches with signature. 1 expected but got 0"),
        ([array([1])], "Shape dimension of input picture mismatches with signature. 4 expected but got 1"),
        ([array([[[[1]]]])], "Input picture has different shape with signature"),
    ):
        with pytest.raises(AssertionError, match=said):
            check(given, SIGNATURE)


# --- services ------------------------------------------------------------------------------------------


def archive(folder: Path, code: str, manifest: dict[str, object]) -> None:
    for name, text in {
        "vision_handler_of_mms.py": code,
        "signature.json": json.dumps(SIGNATURE),
        "synset.txt": "red\ngreen\nblue\n",
        "MANIFEST.json" if "Model" in manifest else "MAR-INF/MANIFEST.json": json.dumps(manifest),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def answers(folder: Path, bodies: list[bytes], monkeypatch: pytest.MonkeyPatch, batch_size: int) -> list[object]:
    """Load an archive as a worker does and run a batch; return answers, and the kinds of errors."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(imported("sys").modules, "vision_handler_of_mms", raising=False)
    manifest = read_manifest(folder)
    context = Context("shown", str(folder), manifest.raw, batch_size)
    entry = load_entry(folder, manifest, "", context, NoSteps(), style="mms")
    requests = [RequestInfo(str(index), parts=[(b"picture", b"", body)]) for index, body in enumerate(bodies)]
    outcomes = run_batch(entry, context, requests, "mms", NoSteps(), True)
    reported(context)
    return [json.loads(each.body) if each.error is None else each.error.message for each in outcomes]


@pytest.mark.row("M68")
@pytest.mark.parametrize("module", ["mxnet_vision_service", "mxnet_vision_batching"])
def test_a_picture_that_is_none_fails_alone(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mxnet: object
) -> None:
    imported(module)
    code = f"import {module}\n{module}._service.__init__()\nfrom {module} import handle\n"
    manifest = {"modelServerVersion": "1.0", "model": {"modelName": "m", "handler": "vision_handler_of_mms:handle"}}
    archive(tmp_path, code, {"runtime": "python", **manifest})

    found = answers(tmp_path, [RED, b"none at all", b"", GREEN], monkeypatch, 6)

    assert found[1:3] == ["Corrupted image input", "Empty image input"]
    assert [found[0][0]["class"], found[3][0]["class"]] == ["red", "green"]  # type: ignore[index]
    assert Module.bound == [("picture", (6, 3, 2, 2))]


def test_a_service_from_before_1_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mxnet: object) -> None:
    imported("mms.model_service.mxnet_vision_service")
    code = (
        "from mms.model_service.mxnet_vision_service import MXNetVisionService\n\n"
        "class Own(MXNetVisionService):\n    pass\n"
    )
    model = {"Model-Name": "m", "Service": "vision_handler_of_mms.py", "Signature": "signature.json"}
    files = {"Symbol": "m-symbol.json", "Parameters": "m-0007.params"}
    archive(tmp_path, code, {"Engine": {"MXNet": 1.1}, "Model": {**model, **files}})

    found = answers(tmp_path, [GREEN], monkeypatch, 1)

    assert found[0][0]["class"] == "green"  # type: ignore[index]
    assert Module.bound == [("picture", (1, 3, 2, 2))]


@pytest.mark.row("M69")
def test_a_network_of_gluon(tmp_path: Path, mxnet: object) -> None:
    archive(tmp_path, "", {"runtime": "python", "model": {"modelName": "m", "handler": "x"}})
    array, loaded = imported("mxnet").nd.array, []

    class Network:
        def load_parameters(self, path: str, ctx: object) -> None:
            loaded.append((path, ctx))

        def __call__(self, data: object) -> object:
            return array(data.values[:, :, 0, 0] * 255)  # type: ignore[attr-defined]

    service = imported("gluon_base_service").GluonBaseService()
    service.net, service.param_filename = Network(), "net.params"
    context = Context("m", str(tmp_path), {}, 2)
    service.initialize(context)

    found = service.handle([{"picture": RED}, {"body": GREEN}], context)

    assert loaded == [(str(tmp_path / "net.params"), "cpu")]
    assert [answer[0]["class"] for answer in found] == ["red", "green"]
    for row, said in (({}, "no input picture"), ({"picture": b"none at all"}, "Corrupted image input")):
        with pytest.raises(InvalidData, match=said):
            service.handle([row], context)


def test_steps_and_their_times() -> None:
    handler = imported("model_handler").ModelHandler()
    context = Context("m", "/", {}, 4)
    context.begin([RequestInfo("a"), RequestInfo("b")])

    handler.initialize(context)

    assert handler.handle([{}, {}], context) == ["OK", "OK"]
    assert set(reported(context)) == {"PreprocessTime", "InferenceTime", "PostprocessTime"}


def test_numbers_for_a_service_of_ones_own(tmp_path: Path, mxnet: object) -> None:
    archive(tmp_path, "", {"runtime": "python", "model": {"modelName": "m", "handler": "x"}})
    service = imported("mxnet_model_service").MXNetModelService()
    context = Context("m", str(tmp_path), {"model": {"modelName": "m"}}, 2)
    context.begin([RequestInfo("a")])
    service.initialize(context)
    rows = [[[1, 2], [3, 4]]] * 3

    assert service.handle([{"body": {"picture": rows}}], context) == ["[10.0, 10.0, 10.0]"]
    assert service.handle([{"picture": json.dumps(rows).encode()}], context) == ["[10.0, 10.0, 10.0]"]
    assert service.mx_model.loaded == (str(tmp_path / "m"), 0)
    for row, said in (({}, "no input picture"), ({"body": {"picture": [[1]]}}, "is no array")):
        with pytest.raises(InvalidData, match=said):
            service.handle([row], context)
