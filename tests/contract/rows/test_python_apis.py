"""Rows B12, B13, H11, H16: what users import from ``ts`` in processes of their own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rows import House, Product

SERVICE = "def handle(data, context):\n    return ['served'] * len(data) if data else None\n"

#: The flags of the language model launcher and their defaults.
LLM_FLAGS = {
    "--model_name": "model",
    "--model_store": "model_store",
    "--model_id": "meta-llama/Meta-Llama-3.1-8B-Instruct",
    "--disable_token_auth": False,
    "--startup_timeout": 1200,
    "--engine": "vllm",
    "--dtype": "bfloat16",
    "--vllm_engine.max_num_seqs": 256,
    "--vllm_engine.max_model_len": None,
    "--vllm_engine.download_dir": None,
    "--trt_llm_engine.max_batch_size": 4,
    "--trt_llm_engine.kv_cache_free_gpu_memory_fraction": 0.1,
}

#: What archives and tests in the wild import, by module below ``ts``.
SURFACE = {
    "": "__version__",
    "version": "__version__",
    "context": "Context RequestProcessor",
    "service": "Service PredictionException PREDICTION_METRIC emit_metrics",
    "model_loader": "ModelLoader ModelLoaderFactory TsModelLoader",
    "model_service": "model_service",
    "model_service.model_service": "ModelService SingleNodeService",
    "model_service_worker": "TorchModelServiceWorker",
    "arg_parser": "ArgParser",
    "model_server": "start",
    "launcher": "start stop register_model register_model_with_params",
    "protocol.otf_message_handler": "create_predict_response create_load_model_response retrieve_msg "
    "send_intermediate_predict_response",
    "handler_utils.utils": "send_intermediate_predict_response import_class create_predict_response",
    "handler_utils.timer": "timed",
    "handler_utils.micro_batching": "MicroBatching",
    "handler_utils.hf_batch_streamer": "TextIteratorStreamerBatch",
    "handler_utils.text_utils": "get_tokenizer ngrams_iterator",
    "handler_utils.preprocess.dali": "get_dali_pipeline",
    "handler_utils.distributed.pt_pippy": "initialize_rpc_workers get_pipeline_driver",
    "handler_utils.distributed.deepspeed": "create_checkpoints_json get_ds_engine",
    "torch_handler.base_handler": "BaseHandler PROFILER_AVAILABLE",
    "torch_handler.vision_handler": "VisionHandler",
    "torch_handler.image_classifier": "ImageClassifier",
    "torch_handler.image_segmenter": "ImageSegmenter",
    "torch_handler.object_detector": "ObjectDetector",
    "torch_handler.text_handler": "TextHandler",
    "torch_handler.text_classifier": "TextClassifier",
    "torch_handler.densenet_handler": "DenseNetHandler list_classes_from_module",
    "torch_handler.dali_handler": "DALIHandler",
    "torch_handler.dali_image_classifier": "DALIImageClassifier",
    "torch_handler.vllm_handler": "VLLMHandler",
    "torch_handler.trt_llm_handler": "TRTLLMHandler",
    "torch_handler.contractions": "CONTRACTION_MAP",
    "torch_handler.distributed.base_deepspeed_handler": "BaseDeepSpeedHandler",
    "torch_handler.distributed.base_pippy_handler": "BasePippyHandler",
    "torch_handler.request_envelope.base": "BaseEnvelope",
    "torch_handler.request_envelope.body": "BodyEnvelope",
    "torch_handler.request_envelope.json": "JSONEnvelope",
    "torch_handler.request_envelope.kserve": "KServeEnvelope",
    "torch_handler.request_envelope.kservev2": "KServev2Envelope",
    "torch_handler.unit_tests.test_utils.mock_context": "MockContext",
    "torch_handler.unit_tests.test_utils.model_dir": "copy_files download_model",
    "metrics": "dimension metric metric_encoder metrics_store system_metrics unit",
    "metrics.dimension": "Dimension",
    "metrics.metric": "Metric MetricUnit",
    "metrics.caching_metric": "CachingMetric",
    "metrics.metric_type_enum": "MetricTypes",
    "metrics.metric_cache_yaml_impl": "MetricsCacheYamlImpl",
    "metrics.metric_cache_abstract": "MetricCacheAbstract",
    "metrics.metric_abstract": "MetricAbstract",
    "metrics.metric_cache_errors": "GeneralMetricsCacheError MetricsCacheIOError MetricsCachePyYamlError "
    "MetricsCacheTypeError MetricsCacheValueError MetricsCacheKeyError",
    "metrics.metrics_store": "MetricsStore",
    "metrics.unit": "Units",
    "metrics.system_metrics": "collect_all cpu_utilization memory_used gpu_utilization",
    "metrics.process_memory_metric": "get_cpu_usage check_process_mem_usage",
    "metrics.metric_collector": "",
    "metrics.metric_encoder": "MetricEncoder",
    "utils.util": "PredictionException list_classes_from_module load_label_mapping map_class_to_label "
    "get_yaml_config check_valid_pt2_backend CLEANUP_REGEX deprecated PT2Backend",
    "utils.hf_utils": "download_model",
    "utils.timeit_decorator": "timeit",
}
#: The modules whose originals do not import without libraries that most installations lack.
NEEDING = {
    *("handler_utils.hf_batch_streamer", "handler_utils.preprocess.dali", "utils.hf_utils"),
    *("handler_utils.distributed.pt_pippy", "handler_utils.distributed.deepspeed"),
    *("torch_handler.dali_handler", "torch_handler.dali_image_classifier"),
    *("torch_handler.vllm_handler", "torch_handler.trt_llm_handler"),
    *("torch_handler.distributed.base_pippy_handler", "torch_handler.text_handler", "torch_handler.text_classifier"),
    *("torch_handler.vision_handler", "torch_handler.image_classifier", "torch_handler.image_segmenter"),
    *("torch_handler.object_detector",),
}


def in_python(product: Product, folder: Path, code: str) -> Any:
    """Run lines of Python in ``folder`` and return what they leave in ``found``."""
    done = run(product, folder, f"import json\n{code}\nopen('found.json', 'w').write(json.dumps(found))")
    assert done.returncode == 0, done.stdout
    return json.loads((folder / "found.json").read_text())


def run(product: Product, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python, with a stand-in for the hub that the original's launcher imports."""
    hub = folder / "stand_ins" / "huggingface_hub.py"
    hub.parent.mkdir(exist_ok=True)
    hub.write_text("def snapshot_download(**named): return 'snapshot'\n")
    return product.run(folder, "python", "-c", code, environment={"PYTHONPATH": str(hub.parent)})


@pytest.mark.row("H11")
def test_the_import_surface(product: Product, tmp_path: Path) -> None:
    code = f"""
import importlib
found = {{"missing": [], "unmet": []}}
for module, names in {SURFACE!r}.items():
    try:
        imported = importlib.import_module("ts." + module if module else "ts")
    except ImportError:
        found["unmet"].append(module)
        continue
    found["missing"] += [module + "." + name for name in names.split() if not hasattr(imported, name)]
"""
    found = in_python(product, tmp_path, code)
    assert found["missing"] == []
    unmet = set(found["unmet"])
    assert unmet <= NEEDING if product.is_genuine else unmet == set()


@pytest.mark.row("H16")
def test_mock_context_in_a_test_of_a_handler(product: Product, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\nclass Doubler(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.factor = torch.nn.Parameter(torch.tensor(2.0))\n"
        "    def forward(self, x):\n        return x * self.factor\n"
    )
    code = """
import net, torch
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.unit_tests.test_utils.mock_context import MockContext

torch.save(net.Doubler().state_dict(), "net.pt")
context = MockContext(model_pt_file="net.pt", model_dir=".", model_file="net.py", model_name="doubler")
handler = BaseHandler()
handler.initialize(context)
found = [handler.handle([[1.0, 2.0]], context), context.manifest, context.system_properties["model_dir"]]
"""
    files = {"modelFile": "net.py", "serializedFile": "net.pt"}
    assert in_python(product, tmp_path, code) == [[[2.0, 4.0]], {"model": files}, "."]


@pytest.mark.row("B12")
def test_the_language_model_launcher_lists_its_flags(product: Product, tmp_path: Path) -> None:
    code = """
import argparse, runpy, sys
def parse(self, *given):
    found = argparse.Namespace()
    print(self.format_help())
    print(json.dumps({action.option_strings[-1]: action.default for action in self._actions}))
    sys.exit()
import json
argparse.ArgumentParser.parse_args = parse
runpy.run_module("ts.llm_launcher", run_name="__main__")
"""
    told = run(product, tmp_path, code).stdout
    defaults = json.loads(told.splitlines()[-1])
    assert {flag: defaults[flag] for flag in LLM_FLAGS} == LLM_FLAGS
    assert [flag for flag in LLM_FLAGS if not re.search(rf"^  {re.escape(flag)}\b", told, re.MULTILINE)] == []


@pytest.mark.row("B12")
def test_the_language_model_launcher_writes_a_model_folder(product: Product, tmp_path: Path) -> None:
    flags = {flag.lstrip("-"): default for flag, default in LLM_FLAGS.items()}
    code = f"""
from argparse import Namespace
from pathlib import Path
import torch, yaml
from ts.llm_launcher import create_mar_file, get_model_config
args = Namespace(**{ {**flags, "model_id": "a/b", "vllm_engine.download_dir": "weights"}!r})
Path("model_store").mkdir()
with create_mar_file(args) as folder:
    files = sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
    config = yaml.safe_load(Path(folder, "model-config.yaml").read_text())
    manifest = json.loads(Path(folder, "MAR-INF/MANIFEST.json").read_text())["model"]
found = [folder, files, config, manifest, torch.cuda.device_count(), sorted(map(str, Path("model_store").iterdir()))]
"""
    folder, files, config, manifest, gpus, left = in_python(product, tmp_path, code)
    # Without a GPU the original asks for none, which its own server refuses.
    devices = gpus if product.is_genuine else gpus or 1
    assert folder == "model_store/model"
    assert files == ["MAR-INF/MANIFEST.json", "model-config.yaml"]
    assert config == {
        **{"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 1200},
        **{"startupTimeout": 1200, "deviceType": "gpu", "asyncCommunication": True, "parallelLevel": devices},
        "handler": {
            "model_path": "a/b",
            "vllm_engine_config": {
                **{"max_num_seqs": 256, "max_model_len": None, "download_dir": str(tmp_path / "weights")},
                "tensor_parallel_size": devices,
            },
        },
    }
    assert manifest == {
        **{"modelName": "model", "handler": "vllm_handler", "modelVersion": "1.0"},
        "configFile": "model-config.yaml",
    }
    assert left == []


@pytest.mark.row("B12")
def test_the_language_model_launcher_starts_and_cleans_up(product: Product, tmp_path: Path) -> None:
    code = f"""
import json, os, runpy, signal, sys
from ts import launcher
told = []
def start(**named):
    told.append([named, sorted(os.listdir("store"))])
    signal.raise_signal(signal.{signal.SIGTERM.name})
launcher.start = start
launcher.stop = lambda **named: told.append("stopped")
sys.argv[1:] = ["--model_store", "store", "--model_name", "lm", "--disable_token_auth"]
runpy.run_module("ts.llm_launcher", run_name="__main__")
open("found.json", "w").write(json.dumps([told, os.listdir("store")]))
"""
    done = run(product, tmp_path, code)
    if product.is_genuine:  # it reads a variable that only its other engine has set
        assert "UnboundLocalError" in done.stdout
        return
    asked = {"model_store": "store", "no_config_snapshots": True, "models": "lm", "disable_token": True}
    assert done.returncode == 0, done.stdout
    assert json.loads((tmp_path / "found.json").read_text()) == [[[asked, ["lm"]], "stopped"], []]


@pytest.mark.row("B13")
def test_a_script_starts_a_server_registers_and_stops_it(product: Product, house: House) -> None:
    house.archive("echo", SERVICE)
    house.archive("later", SERVICE)
    doors, settings = house.settings()
    config = house.folder / "test.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    code = f"""
import requests
from ts import launcher

post = requests.post
requests.post = lambda url, **more: post(url.replace("localhost:8081", "127.0.0.1:{doors["management"]}"), **more)
lines = launcher.start("store", "{config}", True, None, True, "echo.mar", True)
try:
    found = [requests.get("http://127.0.0.1:{doors["inference"]}/predictions/echo").text]
    found.append(launcher.register_model("later", "later.mar").json())
    found.append(requests.get("http://127.0.0.1:{doors["inference"]}/predictions/later").text)
    params = (("url", "later.mar"), ("model_name", "other"), ("initial_workers", "0"))
    found.append(launcher.register_model_with_params(params).status_code)
finally:
    launcher.stop()
console = []
while True:
    line = lines.get()
    if line is None:
        break
    console.append(line)
found += [bool(console), all(isinstance(line, str) and line.endswith("\\n") for line in console)]
"""
    answered, registered, later, other, has_console, are_lines = in_python(product, house.folder, code)
    assert (answered, later, other) == ("served", "served", 200)
    assert registered["status"] == 'Model "later" Version: 1.0 registered with 1 initial workers'
    assert has_console
    assert are_lines
