"""Rows 20 to 24: ``model-archiver``; the e2e tests have MXNet run what it converts."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import onnx.parser
import pytest

from rows import House, Product

FILES = {
    "service.py": "def handle(data, context):\n    return ['made'] * len(data) if data else None\n",
    "model.onnx": "weights",
    "nested/deep/labels.txt": "a",
    ".hidden": "kept",
    "nested/.also": "kept",
    ".folder/lost": "",
    "__pycache__/service.pyc": "",
    "__MACOSX/lost": "",
    "compiled.pyc": "",
    ".DS_Store": "",
    "other.mar": "",
    "nested/MANIFEST.json": "{}",
}
KEPT = {"service.py", "model.onnx", "nested/deep/labels.txt", ".hidden", "nested/.also", "MAR-INF/MANIFEST.json"}
MANIFEST = {
    "runtime": "python",
    "model": {"modelName": "made", "handler": "service:handle"},
    "modelServerVersion": "1.0",
    "implementationVersion": "1.0",
    "specificationVersion": "1.0",
}
ASKED = ("--model-name", "made", "--model-path", "model", "--handler", "service:handle")


@pytest.fixture
def source(house: House) -> Path:
    """A folder with a model, and with what is not packed."""
    for name, text in FILES.items():
        path = house.folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.folder / "model"


@pytest.mark.row("M20")
@pytest.mark.row("M22")
@pytest.mark.row("M27")
def test_a_folder_becomes_an_archive_that_is_served(product: Product, house: House, source: Path) -> None:
    done = product.run(house.folder, "model-archiver", *ASKED, "--export-path", "store")

    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(house.store / "made.mar") as archive:
        assert set(archive.namelist()) == KEPT
        assert json.loads(archive.read("MAR-INF/MANIFEST.json")) == MANIFEST
    server = house.start("made.mar")
    assert server.ask("/predictions/made").text == "made"


@pytest.mark.row("M21")
def test_the_other_formats(product: Product, house: House, source: Path) -> None:
    (house.folder / "out").mkdir()
    for kind in ("tgz", "no-archive"):
        done = product.run(
            house.folder,
            "model-archiver",
            *ASKED,
            "--export-path",
            "out",
            "--archive-format",
            kind,
            "--runtime",
            "python3",
        )
        assert done.returncode == 0, done.stdout

    with tarfile.open(house.folder / "out" / "made.tar.gz") as archive:
        files = {member.name for member in archive.getmembers() if member.isfile()}
        told = archive.extractfile("made/MAR-INF/MANIFEST.json")
        assert told is not None
        assert json.load(told) == {**MANIFEST, "runtime": "python3"}
    assert files == {f"made/{name}" for name in KEPT}
    folder = house.folder / "out" / "made"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == KEPT


@pytest.mark.row("M21")
def test_a_folder_in_its_place_gets_a_manifest_alone(product: Product, house: House, source: Path) -> None:
    asked = ("--model-name", "model", "--model-path", "./model", "--handler", "service:handle", "--export-path", ".")
    before = {path for path in source.rglob("*") if path.is_file()}

    done = product.run(house.folder, "model-archiver", *asked, "--archive-format", "no-archive", "--force")

    assert done.returncode == 0, done.stdout
    assert {path for path in source.rglob("*") if path.is_file()} - before == {source / "MAR-INF" / "MANIFEST.json"}


@pytest.mark.row("M23")
def test_what_is_refused(product: Product, house: House, source: Path) -> None:
    def run(*arguments: str) -> int:
        return product.run(house.folder, "model-archiver", *arguments).returncode

    handler = ("--handler", "service:handle")
    assert run(*ASKED) == 0
    assert run(*ASKED) == 1
    assert run(*ASKED, "-f") == 0
    for name in ("_a", "a b"):
        assert run("--model-name", name, "--model-path", "model", *handler) == 1
    assert run("--model-name", "a", "--model-path", "no", *handler) == 1
    assert run(*ASKED, "--export-path", "no") == 1
    for missing in (("--model-name", "a", *handler), ("--model-path", "model", *handler), ASKED[:4]):
        assert run(*missing) == 2
    assert run(*ASKED, "--runtime", "java") == 2
    assert run("--model-name", "1.a-b_c", "--model-path", "model", *handler) == 0


MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[batch,3] bits) => (float[batch,2] scores) <float[2,3] w = {1,2,3,4,5,6}>
{ scores = Gemm<transB=1>(bits, w) }
"""


@pytest.mark.row("M24")
def test_an_onnx_file_is_converted_when_asked_for_alone(product: Product, house: House, source: Path) -> None:
    if not product.is_genuine:  # it needs MXNet for that, which is not there, and says so as of a file that is none
        onnx.save(onnx.parser.parse_model(MODEL), str(source / "model.onnx"))
        (source / "signature.json").write_text(
            '{"inputs": [{"data_name": "data", "data_shape": [1]}], "outputs": []}'
        )
        before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
        assert product.run(house.folder, "model-archiver", *ASKED, "--convert").returncode == 0
        with zipfile.ZipFile(house.folder / "made.mar") as archive:
            made = {"made-symbol.json", "made-0000.params", "signature.json"}
            assert set(archive.namelist()) == KEPT - {"model.onnx"} | made
            (told,) = json.loads(archive.read("signature.json"))["inputs"]
            assert told == {"data_name": "bits", "data_shape": [0, 3]}
        assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
        (source / "model.onnx").write_text("weights")
        (source / "signature.json").unlink()
        (house.folder / "made.mar").unlink()
    said = product.run(house.folder, "model-archiver", *ASKED, "--convert")

    assert said.returncode == 1
    assert not (house.folder / "made.mar").exists()
    (source / "model.onnx").unlink()
    assert product.run(house.folder, "model-archiver", *ASKED, "--convert").returncode == 0


@pytest.mark.row("M24")
def test_a_folder_in_its_place_gets_what_is_made_of_it(product: Product, house: House, source: Path) -> None:
    asked = ("--model-name", "model", "--model-path", "model", "--handler", "service:handle", "--convert", "--force")
    if product.is_genuine:
        return  # which takes its two files away again
    onnx.save(onnx.parser.parse_model(MODEL), str(source / "model.onnx"))
    before = {path for path in source.rglob("*") if path.is_file()}

    done = product.run(house.folder, "model-archiver", *asked, "--archive-format", "no-archive")

    assert done.returncode == 0, done.stdout
    made = ("MAR-INF/MANIFEST.json", "model-symbol.json", "model-0000.params", "signature.json")
    assert {path for path in source.rglob("*") if path.is_file()} - before == {source / name for name in made}
