"""Rows of handlers: how they are found, what they are told, what they may say, and what they import."""

from __future__ import annotations

import http.client
import json
import socket
import zipfile
from collections.abc import Mapping

import pytest

from pairs import PATIENCE, until
from rows import Answer, House, Product, Running

CALLS = """
import os

calls = []

def answer(data, context):
    calls.append([data is None, context is not None, os.getcwd() == context.system_properties["model_dir"]])
    return [calls] if data else None
"""
ONE_CLASS = """
from collections import OrderedDict
import json

class Service(object):
    def initialize(self, context):
        self.told = context.system_properties

    def handle(self, data, context):
        assert context.manifest["model"]["handler"] == "service:no_such_function"
        told = [self.told[name] for name in ("gpu_id", "batch_size", "server_name")]
        return [json.dumps([*told, context.model_name])]
"""
TWO_CLASSES = """
class One(object):
    def initialize(self, context):
        pass
    def handle(self, data, context):
        return ["one"]

class Two(One):
    pass

class Three(One):
    pass
"""
WITHOUT_ARGUMENT = """
class Service(object):
    def initialize(self):
        self.is_ready = True

    def handle(self, data, context):
        return [getattr(self, "is_ready", False)]
"""
PROCESSOR = """
def handle(data, context):
    if data:
        how = bytes(data[0]["body"]).decode()
        processor = context.request_processor
        if how == "list":
            processor[0].report_status(418, "Teapot")
        elif how == "object":
            processor.report_status(418, "Teapot")
        else:
            context.set_response_status(203, "Own", 0)
            context.set_response_header(0, "X-Own", "yes")
            context.set_response_content_type(0, "text/x-own")
            assert context.get_response_status(0) == (203, "Own")
        return ["said " + processor[0].get_request_property("X-Asked")]
"""
HEADERS = """
import json

def handle(data, context):
    if data is None:
        return None
    told = context.request_processor[0].get_request_properties()
    names = ("content-length", "transfer-encoding")
    return [json.dumps({name: told[name] for name in told if name.lower() in names})]
"""
OUT_OF_MEMORY = "def handle(data, context):\n    raise MemoryError()\n"
RAISES_IN_INITIALIZE = """
class Service(object):
    def initialize(self, context):
        raise ValueError("as intended")

    def handle(self, data, context):
        return ["served all the same"]
"""
#: Every name of the import surface that needs no MXNet.
NAMES = {
    "mms": ["__version__"],
    "mms.version": ["__version__"],
    "mms.service": ["PredictionException", "Service", "emit_metrics"],
    "mms.context": ["Context", "RequestProcessor"],
    "mms.metrics.dimension": ["Dimension"],
    "mms.metrics.metric": ["Metric"],
    "mms.metrics.metrics_store": ["MetricsStore"],
    "mms.metrics.metric_encoder": ["MetricEncoder"],
    "mms.metrics.system_metrics": ["collect_all", "system_metrics", "cpu_utilization"],
    "mms.metrics.unit": ["Units"],
    "mms.utils.timeit_decorator": ["timeit"],
    "mms.model_loader": ["ModelLoaderFactory", "ModelLoader", "MmsModelLoader", "LegacyModelLoader"],
    "mms.protocol.otf_message_handler": ["create_predict_response", "create_load_model_response"],
    "mms.arg_parser": ["ArgParser"],
    "mms.model_server": ["start"],
    "mms.model_service_worker": ["MXNetModelServiceWorker"],
    "mms.export_model": ["main"],
    "mms.metrics.process_memory_metric": ["check_process_mem_usage"],
}
#: Those of release 0.4 that 1.1.11 has no more.
OLDER_NAMES = {
    "mms.log": ["get_logger"],
    "mms.metrics_manager": ["MetricsManager"],
    "mms.model_service.model_service": ["MultiNodesService", "load_service"],
}
IMPORTS = """
import importlib

NAMES = %r

def handle(data, context):
    missing = [(module, name) for module, names in NAMES.items() for name in names
               if not hasattr(importlib.import_module(module), name)]
    from mms.context import Context, RequestProcessor
    made = Context("m", "/folder", {}, 2, None, "1.0")
    processor = RequestProcessor({"a": "b"})
    made.request_processor = [processor]
    made.set_response_content_type(0, "text/x")
    return [[missing, made.system_properties["batch_size"], made.get_response_content_type(0)]] if data else None
"""
#: As much of MXNet and numpy as the original's package imports at once.
STUBS = {
    "mxnet/__init__.py": "from . import image, io, ndarray, nd\n__version__ = 'stub'\n",
    "mxnet/io.py": "class DataBatch(object):\n    pass\n",
    "mxnet/image.py": "",
    "mxnet/nd.py": "class NDArray(object):\n    pass\n",
    "mxnet/ndarray.py": "",
    "numpy.py": "float32 = None\n",
}
LEGACY = """
from mms.model_service.mxnet_model_service import SingleNodeService

class Unrelated(object):
    pass

class NoopService(SingleNodeService):
    def __init__(self, model_name, model_dir, manifest, gpu=None):
        super(NoopService, self).__init__(model_name, model_dir, manifest, gpu)
        self.told = [model_name, manifest["Model"]["Model-Name"], gpu]

    def _preprocess(self, data):
        return data[0]

    def _inference(self, data):
        return [{"got": data, "told": self.told}]
"""


@pytest.fixture(scope="module")
def server(shared_house: House) -> Running:
    """A server without models."""
    return shared_house.start()


def register(server: Running, name: str, code: str, handler: str = "service:handle", **files: str) -> Answer:
    """Pack an archive and register it with a worker."""
    archive = server.house.archive(name, code, handler=handler, files=files)
    return server.manage("POST", f"/models?url={archive}&initial_workers=1")


@pytest.mark.row("M58")
def test_a_function_is_called_without_data_first(server: Running) -> None:
    assert register(server, "calls", CALLS, "folder/service.py:answer").status == 200

    assert server.ask("/predictions/calls").json() == [[True, True, True], [False, True, True]]


@pytest.mark.row("M27")
@pytest.mark.row("M59")
@pytest.mark.row("M52")
def test_the_length_of_the_body_is_among_the_headers_however_it_came(server: Running) -> None:
    assert register(server, "headers", HEADERS).status == 200
    asked = (
        b"GET /predictions/headers HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /predictions/headers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    )
    found = []
    with socket.create_connection(("127.0.0.1", server.doors["inference"]), timeout=PATIENCE) as client:
        for request in asked:
            client.sendall(request)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            found.append(json.loads(answer.read()))

    assert found == [{"content-length": "0"}, {"content-length": "2"}]


@pytest.mark.row("M61")
def test_the_one_class_of_a_module(server: Running) -> None:
    assert register(server, "class", ONE_CLASS, "service:no_such_function").status == 200

    assert server.ask("/predictions/class").json() == [None, 1, "MMS", "class"]


@pytest.mark.row("M59")
def test_several_classes_are_refused(server: Running) -> None:
    refused = register(server, "classes", TWO_CLASSES)

    assert (refused.status, refused.json()["message"]) == (500, "Failed to start workers")
    until("it is gone", lambda: server.manage("GET", "/models/classes").status == 404)


@pytest.mark.row("M60")
def test_initialize_without_an_argument(product: Product, server: Running) -> None:
    assert register(server, "without", WITHOUT_ARGUMENT).status == 200

    assert server.ask("/predictions/without").json() is not product.is_genuine


@pytest.mark.row("M60")
def test_an_error_in_initialize(product: Product, server: Running) -> None:
    answer = register(server, "initialize", RAISES_IN_INITIALIZE)

    if product.is_genuine:
        assert server.ask("/predictions/initialize").text == "served all the same"
        return
    assert (answer.status, answer.json()["message"]) == (500, "Failed to start workers")
    assert "ValueError: as intended" in answer.json()["traceback"]
    assert server.manage("GET", "/models/initialize").status == 404


@pytest.mark.row("M62")
@pytest.mark.row("M63")
def test_status_phrase_and_headers(product: Product, server: Running) -> None:
    assert register(server, "processor", PROCESSOR).status == 200

    def ask(how: str) -> Answer:
        return server.ask("/predictions/processor", how, headers={"X-Asked": how})

    said = ask("list")
    assert (said.status, said.phrase, said.text) == (418, "Teapot", "said list")
    said = ask("object")
    expected = (503, "Service Unavailable") if product.is_genuine else (418, "Teapot")
    assert (said.status, said.phrase) == expected
    said = ask("context")
    assert (said.status, said.phrase, said.text) == (203, "Own", "said context")
    assert (said.headers["X-Own"], said.headers["content-type"]) == ("yes", "text/x-own")


@pytest.mark.row("M64")
def test_a_lack_of_memory_at_load_leaves_nothing(product: Product, server: Running) -> None:
    refused = register(server, "hungry", OUT_OF_MEMORY)

    assert (refused.status, refused.json()["message"]) == (507, "Failed to start workers")
    # There the name stays taken.
    assert server.manage("GET", "/models/hungry").status == (200 if product.is_genuine else 404)


@pytest.mark.row("M66")
def test_the_names_of_mms(product: Product, server: Running) -> None:
    names = NAMES if product.is_genuine else {**NAMES, **OLDER_NAMES}
    assert register(server, "imports", IMPORTS % names).status == 200

    assert server.ask("/predictions/imports").json() == [[], 2, "text/x"]


@pytest.mark.row("M32")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"runtime": "ruby"}, "Runtime is not defined or invalid."),
        ({"engine": {"engineVersion": "1.9.1"}}, "engineName is required in <engine>."),
        ({"model": {"modelName": "wrong"}}, "Model handler is not defined."),
        ({"model": {"handler": "service:handle"}}, "Model name is not defined."),
    ],
)
def test_manifests_that_are_refused(server: Running, wrong: Mapping[str, object], said: str) -> None:
    manifest = {"runtime": "python", "model": {"modelName": "wrong", "handler": "service:handle"}, **wrong}
    with zipfile.ZipFile(server.house.store / "wrong.mar", "w") as archive:
        archive.writestr("service.py", CALLS)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({**server.house.product.original.manifest, **manifest}))

    refused = server.manage("POST", "/models?url=wrong.mar")

    assert (refused.status, refused.json()["type"]) == (400, "InvalidModelException")
    assert refused.json()["message"] == said
    assert server.manage("GET", "/models/wrong").status == 404


def pack_legacy(server: Running, name: str, files: Mapping[str, str], folder: str = "") -> str:
    """Write an archive of release 0.x, maybe with one folder around everything; return its name."""
    manifest = {
        "Model-Archive-Version": 0.1,
        "Model-Server": 0.4,
        "Engine": {"MXNet": 1.1},
        "Model": {
            "Model-Name": name,
            "Service": "service.py",
            "Signature": "signature.json",
            "Model-Format": "MXNet-Symbolic",
        },
    }
    signature = {"input_type": "application/json", "inputs": [{"data_name": "data", "data_shape": [0]}]}
    held = {**files, "MANIFEST.json": json.dumps(manifest), "signature.json": json.dumps(signature)}
    with zipfile.ZipFile(server.house.store / f"{name}.model", "w") as archive:
        for inside, content in held.items():
            archive.writestr(folder + inside, content)
    return f"{name}.model"


@pytest.mark.row("M28")
@pytest.mark.row("M67")
@pytest.mark.parametrize("folder", ["", "around/"])
def test_an_archive_of_release_0(server: Running, folder: str) -> None:
    name = f"legacy{len(folder)}"
    location = pack_legacy(server, name, {**STUBS, "service.py": LEGACY}, folder)

    assert server.manage("POST", f"/models?url={location}&initial_workers=1").status == 200

    described = server.describe(name)
    assert (described["modelVersion"], described["engine"]) == ("snapshot", "MXNet")
    answer = server.ask(f"/{name}/predict?data=%5B1,2%5D")
    assert answer.json() == {"got": [1, 2], "told": [name, name, None]}
