"""``model-archiver --convert``: what it makes of ONNX files answers in the real MXNet as in onnxruntime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import parser
from torch import nn

from live import ROOT, serving
from marserve.archive.environment import environment_for, interpreter
from marserve.archive.needs import Needs
from marserve.archive.onnx_conversion import convert

REQUIREMENTS = ROOT / "archives" / "fizbuz_mxnet" / "requirements.txt"
PYTHON = ">=3.10,<3.12"
#: Largest difference between the two.
TOLERANCE = 1e-5

#: Runs in MXNet's interpreter: answers each ``NAME.npz`` of a folder by the model of that name, as services do it.
ANSWER = """
import sys
from pathlib import Path

import mxnet
import numpy

for path in sorted(Path(sys.argv[1]).glob("*.npz")):
    given = dict(numpy.load(path))
    prefix = str(path.with_suffix(""))
    symbol, arguments, states = mxnet.model.load_checkpoint(prefix, 0)
    module = mxnet.mod.Module(symbol, data_names=list(given), label_names=None)
    module.bind(for_training=False, data_shapes=[(name, array.shape) for name, array in given.items()])
    module.set_params(arguments, states, allow_missing=False, allow_extra=False)
    module.forward(mxnet.io.DataBatch([mxnet.nd.array(array) for array in given.values()]), is_train=False)
    numpy.savez(prefix + ".answers", *[output.asnumpy() for output in module.get_outputs()])
"""

VECTOR = "(float[N,6] x) => (float[N,M] y)"
PICTURE = "(float[N,4,7,9] x) => (float[N,C,H,W] y)"
#: Operators, or ways of writing them: inputs and outputs, constants, the nodes, and the opset if another than 18.
CASES: dict[str, tuple[Any, ...]] = {
    "gemm": (VECTOR, "float[6,2] w, float[1,2] b", "y = Gemm<alpha=0.5,beta=2.0>(x, w, b)"),
    "gemm_number": (VECTOR, "float[2,6] w, float b", "y = Gemm<transB=1>(x, w, b)"),
    "matmul": (VECTOR, "float[6,2] w, float[2] b", "m = MatMul(x, w) y = Add(m, b)"),
    "matmul_deep": ("(float[N,3,6] x) => (float[N,3,2] y)", "float[6,2] w", "y = MatMul(x, w)"),
    "matmul_both": ("(float[N,3,6] x, float[N,6,2] z) => (float[N,3,2] y)", "", "y = MatMul(x, z)"),
    "conv": (PICTURE, "float[6,2,3,3] w, float[6] b", "y = Conv<group=2,pads=[1,2,1,2],strides=[2,1]>(x, w, b)"),
    "conv_dilated": (PICTURE, "float[5,4,3,2] w", "y = Conv<dilations=[2,3]>(x, w)"),
    "conv_uneven": (PICTURE, "float[5,4,3,3] w", "y = Conv<pads=[0,1,1,2]>(x, w)"),
    "conv_line": (
        "(float[N,4,9] x) => (float[N,C,L] y)",
        "float[5,4,3] w, float[5] b",
        "y = Conv<pads=[1,1]>(x, w, b)",
    ),
    "batch_norm": (
        PICTURE,
        "float[4] s, float[4] b, float[4] m, float[4] v",
        "a = Abs(v) y = BatchNormalization<epsilon=0.01>(x, s, b, m, a)",
    ),
    "batch_norm_vector": (
        VECTOR,
        "float[6] s, float[6] b, float[6] m, float[6] v",
        "a = Abs(v) y = BatchNormalization(x, s, b, m, a)",
    ),
    "max_pool": (PICTURE, "", "y = MaxPool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]>(x)"),
    "max_pool_up": (PICTURE, "", "y = MaxPool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(x)"),
    "max_pool_uneven": (PICTURE, "", "y = MaxPool<kernel_shape=[2,2],pads=[0,0,1,1]>(x)"),
    "average_pool": (PICTURE, "", "y = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(x)"),
    "average_pool_whole": (PICTURE, "", "y = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1],count_include_pad=1>(x)"),
    "global_average": (PICTURE, "", "y = GlobalAveragePool(x)"),
    "global_max": (PICTURE, "", "y = GlobalMaxPool(x)"),
    "pad": (PICTURE, "int64[8] p = {0,0,1,0,0,0,0,2}, float c = {0.5}", "y = Pad(x, p, c)"),
    "add_arrays": ("(float[N,6] x, float[N,1] z) => (float[N,6] y)", "", "y = Add(x, z)"),
    "rank": (PICTURE, "float[4,1,1] c", "y = Mul(c, x)"),
    "numbers": (
        VECTOR,
        "float a = {2.5}, float[1] b = {3.0}",
        "s = Sub(a, x) d = Div(s, b) e = Exp(x) q = Div(a, e) y = Add(d, q)",
    ),
    "power": (VECTOR, "float two = {2.0}", "y = Pow(x, two)"),
    "clip": (VECTOR, "float low = {-0.5}, float high = {0.25}", "y = Clip(x, low, high)"),
    "clip_one": (VECTOR, "float high = {0.25}", "y = Clip(x, , high)"),
    "clip_old": (VECTOR, "", "y = Clip<min=-0.5,max=0.5>(x)", 10),
    "softmax": (PICTURE, "", "y = Softmax<axis=1>(x)"),
    "softmax_old": (VECTOR, "", "y = Softmax(x)", 11),
    "log_softmax": (VECTOR, "", "y = LogSoftmax(x)"),
    "leaky": (VECTOR, "", "a = LeakyRelu<alpha=0.2>(x) y = Elu<alpha=0.7>(a)"),
    "hard": (VECTOR, "", "a = HardSigmoid(x) b = HardSwish(x) y = Add(a, b)"),
    "curves": (VECTOR, "", "a = Sigmoid(x) b = Tanh(a) c = Softplus(b) d = Erf(c) y = Neg(d)"),
    "roots": (VECTOR, "", "a = Abs(x) b = Sqrt(a) c = Exp(b) d = Log(c) y = Relu(d)"),
    "mean": ("(float[N,4,7,9] x) => (float[N,4] y)", "int64[2] a = {-1,-2}", "y = ReduceMean<keepdims=0>(x, a)"),
    "mean_old": (PICTURE, "", "y = ReduceMean<axes=[2,3]>(x)", 13),
    "flatten": ("(float[N,4,7,9] x) => (float[N,M] y)", "", "y = Flatten(x)"),
    "reshape": ("(float[N,4,7,9] x) => (float[N,K,9] y)", "int64[3] s = {0,-1,9}", "y = Reshape(x, s)"),
    "reshape_computed": (
        "(float[N,4,7,9] x) => (float[N,M] y)",
        "int64[1] zero = {0}, int64[1] one = {1}, int64[1] rest = {-1}",
        "s = Shape(x) n = Slice(s, zero, one) t = Concat<axis=0>(n, rest) r = Reshape(x, t) y = Relu(r)",
    ),
    "transpose": (PICTURE, "", "y = Transpose<perm=[0,2,3,1]>(x)"),
    "unsqueeze": (
        "(float[N,6] x) => (float[N,6,1] y)",
        "int64[2] a = {-1,1}, int64[1] b = {1}",
        "u = Unsqueeze(x, a) y = Squeeze(u, b)",
    ),
    "unsqueeze_old": (VECTOR, "", "u = Unsqueeze<axes=[1]>(x) y = Squeeze<axes=[1]>(u)", 11),
    "concat": (PICTURE, "", "a = Relu(x) y = Concat<axis=1>(a, x, a)"),
    "dropout": (VECTOR, "", "d = Dropout(x) y = Identity(d)"),
    "two_outputs": ("(float[N,6] x) => (float[N,6] y, float[N,6] z)", "", "y = Relu(x) z = Tanh(y)"),
}


class Picture(nn.Module):
    """A small network for pictures, with BatchNorm where exporters can fold it away and where they cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU6(), nn.BatchNorm2d(8))
        self.last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 4))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.last(self.second(self.first(picture))), dim=-1)


def trained() -> Picture:
    """Return the network as training leaves it: with statistics that are neither zeros nor ones."""
    torch.manual_seed(7)
    network = Picture()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.2, 3)):
                assert values is not None
                nn.init.uniform_(values, low, high)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


def exported(path: Path, is_new: bool) -> Path:
    """Write the network by either of torch's exporters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both deprecate what they call themselves
        batch = (
            {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
            if is_new
            else {"dynamic_axes": {"picture": {0: "batch"}}}
        )
        torch.onnx.export(
            trained(),
            (torch.zeros(2, 3, 12, 12),),
            str(path),
            input_names=["picture"],
            dynamo=is_new,
            verbose=False,
            **batch,
        )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversion")


@pytest.fixture(scope="module")
def python(folder: Path) -> str:
    """MXNet's interpreter, in the environment that a server with this cache will find."""
    needs = Needs(REQUIREMENTS.parent, PYTHON, REQUIREMENTS, is_alone=True)
    return str(interpreter(environment_for(needs, folder / "cache" / "environments")))


def write_case(path: Path, ends: str, constants: str, nodes: str, opset: int = 18) -> None:
    """Write a case as an ONNX file; constants without values get random ones."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}]> net {ends}'
    named = [each.strip() for each in constants.split(", ") if each]
    given = [each for each in named if "=" in each]
    model = parser.parse_model(f"{head} <{', '.join(given)}> {{ {nodes} }}" if given else f"{head} {{ {nodes} }}")
    random = np.random.default_rng(5)
    for each in named:
        if "=" not in each:
            kind, name = each.split()
            shape = [int(size) for size in kind.partition("[")[2].rstrip("]").split(",") if size]
            values = random.normal(size=shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def inputs_of(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    random = np.random.default_rng(11)
    return {
        each.name: random.normal(size=[size if isinstance(size, int) else 3 for size in each.shape]).astype(
            np.float32
        )
        for each in session.get_inputs()
    }


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.row("M25")
@pytest.mark.row("M26")
def test_every_operator_answers_in_mxnet_as_in_onnxruntime(folder: Path, python: str) -> None:
    place = folder / "operators"
    place.mkdir()
    for name, case in CASES.items():
        write_case(place / f"{name}.onnx", *case)
    for is_new in (True, False):
        exported(place / f"exported_{is_new}.onnx", is_new)
    expected = {}
    for path in sorted(place.glob("*.onnx")):
        session = session_of(path)
        given = inputs_of(session)
        expected[path.stem] = session.run(None, given)
        np.savez(path.with_suffix(".npz"), **given)
        found = convert(path)
        (place / f"{path.stem}-symbol.json").write_bytes(found.symbol)
        (place / f"{path.stem}-0000.params").write_bytes(found.params)
        if path.stem.startswith(("exported", "batch_norm")):
            assert b'"BatchNorm"' in found.symbol
            assert b"aux:" in found.params

    done = subprocess.run([python, "-c", ANSWER, str(place)], capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stderr
    for name, outputs in expected.items():
        answers = np.load(place / f"{name}.answers.npz")
        for position, output in enumerate(outputs):
            np.testing.assert_allclose(
                answers[f"arr_{position}"], output, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )


@pytest.mark.row("M24")
@pytest.mark.row("M25")
def test_converted_models_are_served(folder: Path, python: str, worked: Callable[[str], Path]) -> None:
    store = folder / "store"
    store.mkdir()
    with zipfile.ZipFile(worked("fizbuz_package")) as archive:
        archive.extract("fizbuz.onnx", folder / "fizbuz")
    (folder / "picture").mkdir()
    exported(folder / "picture" / "picture.onnx", is_new=True)
    asked = {}
    for name in ("fizbuz", "picture"):
        source = folder / name
        shutil.copy(REQUIREMENTS, source)
        (source / "model-config.yaml").write_text(json.dumps({"python": PYTHON, "requirements": "requirements.txt"}))
        command = [str(Path(sys.executable).with_name("model-archiver")), "--model-name", name, "--convert"]
        command += ["--model-path", str(source), "--handler", "mxnet_service", "--export-path", str(store)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        session = session_of(next(source.glob("*.onnx")))
        given = inputs_of(session)
        asked[name] = given, session.run(None, given)[0]

    start = ("marserve", "start", "--foreground", "--dialect", "mms")
    settings = {"enable_metrics_api": "true"}
    with serving(store, command=start, settings=settings, cache=folder / "cache") as server:
        for name, (given, expected) in asked.items():
            registered = server.manage("POST", "/models", params={"url": f"{name}.mar", "initial_workers": 1})
            assert registered.status_code == 200, registered.text
            for row, output in enumerate(expected):
                answer = server.predict(name, {key: array[row].tolist() for key, array in given.items()})
                assert answer.status_code == 200, answer.text
                np.testing.assert_allclose(answer.json(), output, rtol=TOLERANCE, atol=TOLERANCE)
    assert ": making an environment" not in server.log
