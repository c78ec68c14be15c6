"""Rows A: the model archiver as a command and as a Python package, and archives that were made otherwise."""

from __future__ import annotations

import json
import os
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rows import House, Product, Running

MANIFEST = "MAR-INF/MANIFEST.json"
SERVICE = (
    "# long enough to be deflated: "
    + "x" * 200
    + """
def handle(data, context):
    return [str(row) for row in data] if data else None
"""
)
BUILT_IN = (
    *("base_handler", "text_classifier", "image_classifier", "object_detector", "image_segmenter"),
    *("dali_image_classifier", "vllm_handler", "trt_llm_handler"),
)


@pytest.fixture
def workshop(house: House) -> Path:
    """Return a folder with what the archives below are made of."""
    texts = {
        "h.py": SERVICE,
        "w.pt": "weights " * 100,
        "net.py": "class Net: pass\n",
        "req.txt": "numpy\n",
        "config.yaml": "batchSize: 4\n",
        "labels/index_to_name.json": "{}",
        "labels/deep/more.txt": "more",
        "labels/extra.bin": "extra",
    }
    for name, text in texts.items():
        path = house.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.folder


def pack(product: Product, folder: Path, *more: str, name: str = "m", handler: str = "h.py") -> tuple[int, str]:
    """Pack a model; return the exit code and what was printed."""
    arguments = ["--model-name", name, "--version", "1.0", "--handler", handler, *more]
    done = product.run(folder, "torch-model-archiver", *arguments)
    return done.returncode, done.stdout


def in_python(product: Product, folder: Path, code: str) -> Any:
    """Run lines of Python in ``folder`` and return what they leave in ``found``."""
    code = f"import json\n{code}\nopen('found.json', 'w').write(json.dumps(found))"
    done = product.run(folder, "python", "-c", code)
    assert done.returncode == 0, done.stdout
    return json.loads((folder / "found.json").read_text())


def names(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as packed:
        return set(packed.namelist())


def manifest(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(archive) as packed:
        found: dict[str, Any] = json.loads(packed.read(MANIFEST))
    return found


@pytest.mark.row("A1")
@pytest.mark.parametrize(
    ("archive_format", "method"), [("default", zipfile.ZIP_DEFLATED), ("zip-store", zipfile.ZIP_STORED)]
)
def test_a_mar_is_a_flat_zip(product: Product, workshop: Path, archive_format: str, method: int) -> None:
    status, said = pack(product, workshop, "--serialized-file", "w.pt", "--archive-format", archive_format)
    assert status == 0, said
    with zipfile.ZipFile(workshop / "m.mar") as packed:
        found = {info.filename: info.compress_type for info in packed.infolist()}
    assert found == dict.fromkeys(("h.py", "w.pt", MANIFEST), method)


@pytest.mark.row("A2")
def test_the_other_forms_of_an_archive(product: Product, workshop: Path) -> None:
    assert pack(product, workshop, "--archive-format", "tgz")[0] == 0
    with tarfile.open(workshop / "m.tar.gz") as packed:
        assert set(packed.getnames()) == {"m/h.py", f"m/{MANIFEST}"}
    (workshop / "out").mkdir()
    assert pack(product, workshop, "--archive-format", "no-archive", "--export-path", "out")[0] == 0
    folder = workshop / "out" / "m"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {"h.py", MANIFEST}


@pytest.mark.row("A2")
def test_what_can_be_run_still_can_be_in_a_folder(product: Product, workshop: Path) -> None:
    script = workshop / "labels" / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (workshop / "out").mkdir()
    asked = ("--archive-format", "no-archive", "--export-path", "out", "--extra-files", "labels")
    assert pack(product, workshop, *asked)[0] == 0
    assert os.access(workshop / "out" / "m" / "run.sh", os.X_OK)
    assert not os.access(workshop / "out" / "m" / "h.py", os.X_OK)


@pytest.mark.row("A3")
def test_a_manifest_holds_what_was_given_and_no_more(product: Product, workshop: Path) -> None:
    pack(product, workshop)
    found = manifest(workshop / "m.mar")
    assert list(found) == ["createdOn", "runtime", "model", "archiverVersion"]
    assert re.fullmatch(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", found["createdOn"])
    assert found["runtime"] == "python"
    assert found["model"] == {"modelName": "m", "handler": "h.py", "modelVersion": "1.0"}
    with zipfile.ZipFile(workshop / "m.mar") as packed:
        assert packed.read(MANIFEST).startswith(b'{\n  "createdOn": "')


@pytest.mark.row("A4")
def test_a_handler_keeps_its_function(product: Product, workshop: Path) -> None:
    assert pack(product, workshop, handler="h:handle")[0] == 0
    assert names(workshop / "m.mar") == {"h.py", MANIFEST}
    assert manifest(workshop / "m.mar")["model"]["handler"] == "h:handle"
    # The original's documentation has the suffix, and its code looks for a file "h.py:handle".
    status, said = pack(product, workshop, name="n", handler="h.py:handle")
    assert (status, "FileNotFoundError" in said) == ((1, True) if product.is_genuine else (0, False))
    if status == 0:
        assert manifest(workshop / "n.mar")["model"]["handler"] == "h.py:handle"


@pytest.mark.row("A5")
def test_built_in_handlers_bring_no_file(product: Product, workshop: Path) -> None:
    code = "from model_archiver import ModelArchiver, ModelArchiverConfig\n"
    code += f"for name in {BUILT_IN!r}:\n"
    code += "    ModelArchiver.generate_model_archive(ModelArchiverConfig(name, name, '1.0'))\n"
    in_python(product, workshop, f"{code}found = None")
    for name in BUILT_IN:
        assert names(workshop / f"{name}.mar") == {MANIFEST}
        assert manifest(workshop / f"{name}.mar")["model"]["handler"] == name


@pytest.mark.row("A6")
def test_extra_files(product: Product, workshop: Path) -> None:
    assert pack(product, workshop, "--extra-files", "labels,req.txt")[0] == 0
    assert names(workshop / "m.mar") == {
        *("h.py", "req.txt", "index_to_name.json", "extra.bin", "deep/more.txt", MANIFEST)
    }
    assert pack(product, workshop, "-f", "--extra-files", "labels/*.b[a-i]n,labels/ind??_to_name.json")[0] == 0
    assert names(workshop / "m.mar") == {"h.py", "extra.bin", "index_to_name.json", MANIFEST}
    status, said = pack(product, workshop, "--extra-files", "gone.txt", name="n")
    assert status == 1
    assert "File does not exist: gone.txt" in said
    assert not (workshop / "n.mar").exists()


@pytest.mark.row("A6")
def test_of_two_files_with_one_name_the_extra_one_counts_but_for_requirements_and_config(
    product: Product, workshop: Path
) -> None:
    (workshop / "ours").mkdir()
    given = {"handler": "h.py", "serialized-file": "w.pt", "model-file": "net.py"}
    kept = {"requirements-file": "req.txt", "config-file": "config.yaml"}
    for name in (*given.values(), *kept.values()):
        (workshop / "ours" / name).write_text("ours")
    flags = [word for flag, name in {**given, **kept}.items() for word in (f"--{flag}", name)]
    assert pack(product, workshop, *flags, "--extra-files", "ours")[0] == 0
    with zipfile.ZipFile(workshop / "m.mar") as packed:
        held = {name: packed.read(name) for name in packed.namelist()}
    assert {name for name, content in held.items() if content == b"ours"} == set(given.values())
    assert held.keys() == {*given.values(), *kept.values(), MANIFEST}


@pytest.mark.row("A6")
def test_extra_files_with_a_blank_after_the_comma_and_a_link_that_leads_nowhere(
    product: Product, workshop: Path
) -> None:
    (workshop / "labels" / "broken").symlink_to("nowhere")
    assert pack(product, workshop, "--extra-files", "labels, req*.txt")[0] == 0
    assert names(workshop / "m.mar") == {
        *("h.py", "req.txt", "index_to_name.json", "extra.bin", "deep/more.txt", MANIFEST)
    }


@pytest.mark.row("A7")
def test_files_with_a_role(product: Product, workshop: Path) -> None:
    roles = {"serialized": "w.pt", "model": "net.py", "requirements": "req.txt", "config": "config.yaml"}
    given = [word for role, path in roles.items() for word in (f"--{role}-file", str(workshop / path))]
    assert pack(product, workshop, *given, "--runtime", "python3")[0] == 0
    assert names(workshop / "m.mar") == {"h.py", MANIFEST, *roles.values()}
    found = manifest(workshop / "m.mar")
    assert found["runtime"] == "python3"
    assert found["model"].items() >= {f"{role}File": path for role, path in roles.items()}.items()


@pytest.mark.row("A8")
def test_what_is_there_is_kept(product: Product, workshop: Path) -> None:
    (workshop / "m.mar").write_text("mine")
    status, said = pack(product, workshop)
    assert status == 1
    assert (
        "m.mar already exists.\nPlease specify --force/-f option to overwrite the model archive output file.\n"
        "See -h/--help for more details.\n"
    ) in said
    assert (workshop / "m.mar").read_text() == "mine"
    assert pack(product, workshop, "--force")[0] == 0
    assert names(workshop / "m.mar") == {"h.py", MANIFEST}


@pytest.mark.row("A9")
@pytest.mark.parametrize("name", ["a b", "_m", "a/b", "ä"])
def test_names_that_are_refused(product: Product, workshop: Path, name: str) -> None:
    status, said = pack(product, workshop, name=name)
    assert status == 1
    assert "The allowed regular expression filter for model name is: ^[A-Za-z0-9][A-Za-z0-9_\\-.]*$" in said


@pytest.mark.row("A10")
def test_the_python_package_packs(product: Product, workshop: Path) -> None:
    code = """
from argparse import Namespace
from dataclasses import fields
from model_archiver import ModelArchiver, ModelArchiverConfig, __version__
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging import generate_model_archive, package_model
from model_archiver.model_packaging_utils import ModelExportUtils
from model_archiver.manifest_components.manifest import Manifest, RuntimeType
from model_archiver.manifest_components.model import Model

def raised(action):
    try:
        action()
    except Exception as error:
        return [type(error).__name__, str(error)]

config = ModelArchiverConfig("m", "h.py", "1.0", serialized_file="w.pt", export_path=".", force=True)
ModelArchiver.generate_model_archive(config)
generate_model_archive(ModelArchiverConfig.from_args(Namespace(**{**vars(config), "model_name": "n"})))
told = str(Manifest("python3", Model("p", "a/w.pt", "a/h:f", model_version="2", extensions={"x": 1})))
package_model(ModelArchiverConfig("p", "h", "2"), told)
found = {
    "fields": [each.name for each in fields(ModelArchiverConfig)],
    "defaults": [config.model_file, config.runtime, config.archive_format, config.config_file],
    "runtimes": [each.value for each in RuntimeType],
    "text": ModelExportUtils.generate_manifest_json(config),
    "again": raised(lambda: generate_model_archive(ModelArchiverConfig("m", "h.py", "1.0"))),
    "missing": raised(lambda: generate_model_archive(ModelArchiverConfig("q", "h", "1", extra_files="gone"))),
    "name": raised(lambda: ModelExportUtils.validate_inputs("a b", ".")),
}
"""
    found = in_python(product, workshop, code)
    assert found["fields"] == [
        *("model_name", "handler", "version", "serialized_file", "model_file", "extra_files", "runtime"),
        *("export_path", "archive_format", "force", "requirements_file", "config_file"),
    ]
    assert found["defaults"] == [None, "python", "default", None]
    assert found["runtimes"] == ["python", "python3", "LSP"]
    for name in ("m", "n"):
        assert names(workshop / f"{name}.mar") == {"h.py", "w.pt", MANIFEST}
    assert json.loads(found["text"])["model"] == manifest(workshop / "m.mar")["model"]
    given = manifest(workshop / "p.mar")
    assert given["runtime"] == "python3"
    assert given["model"] == {
        **{"modelName": "p", "serializedFile": "w.pt", "handler": "h:f"},
        **{"modelVersion": "2", "extensions": {"x": 1}},
    }
    assert found["again"][0] == found["name"][0] == "ModelArchiverError"
    assert "already exists.\nPlease specify --force/-f" in found["again"][1]
    assert found["missing"] == ["FileNotFoundError", "File does not exist: gone"]


@pytest.mark.row("A10")
def test_what_scripts_read_of_the_python_package(product: Product, workshop: Path) -> None:
    code = """
from model_archiver import model_packaging, model_packaging_utils as utils
from model_archiver.manifest_components.manifest import Manifest
from model_archiver.manifest_components.model import Model

model = Model("m", "a/w.pt", "b/h:f", "c/net.py", "1", {"e": 1}, "d/r.txt", "e/c.yaml")
told = Manifest("python", model)
found = {
    "attributes": {name: value for name, value in vars(model).items() if name != "model_dict"},
    "dict": [model.model_dict, json.loads(repr(model))],
    "manifest": [sorted(vars(told)), list(told.__to_dict__())],
    "handlers": utils.model_handlers,
    "endings": utils.archiving_options,
    "names": [utils.MAR_INF, utils.MANIFEST_FILE_NAME, utils.MODEL_SERVER_VERSION, utils.MODEL_ARCHIVE_VERSION],
    "steps": model_packaging.ModelExportUtils is utils.ModelExportUtils and bool(model_packaging.ModelArchiverError),
}
"""
    found = in_python(product, workshop, code)
    assert found["attributes"] == {
        **{"model_name": "m", "serialized_file": "w.pt", "handler": "h:f", "model_file": "c/net.py"},
        **{"model_version": "1", "extensions": {"e": 1}, "requirements_file": "d/r.txt", "config_file": "c.yaml"},
    }
    model = {
        **{"modelName": "m", "serializedFile": "w.pt", "handler": "h:f", "modelFile": "net.py", "modelVersion": "1"},
        **{"extensions": {"e": 1}, "requirementsFile": "r.txt", "configFile": "c.yaml"},
    }
    assert found["dict"] == [model, model]
    attributes, keys = found["manifest"]
    assert attributes == ["archiver_version", "creation_time", "manifest_dict", "model", "runtime"]
    assert keys == ["createdOn", "runtime", "model", "archiverVersion"]
    assert set(found["handlers"]) == set(BUILT_IN)
    assert found["endings"] == {"tgz": ".tar.gz", "no-archive": "", "zip-store": ".mar", "default": ".mar"}
    assert found["names"] == ["MAR-INF", "MANIFEST.json", "1.0", "1.0"]
    assert found["steps"] is True


@pytest.fixture(scope="module")
def server(shared_house: House) -> Running:
    """Return a server that takes registrations."""
    return shared_house.start()


def register(server: Running, archive: str, name: str) -> int:
    return server.manage("POST", f"/models?url={archive}&model_name={name}&initial_workers=1&synchronous=true").status


@pytest.mark.row("A12")
def test_archives_of_all_ages_register(server: Running) -> None:
    house = server.house
    old = {
        **{"specificationVersion": "1.0", "implementationVersion": "1.0", "description": "d", "license": "l"},
        **{"modelServerVersion": "1.0", "engine": {"engineName": "e"}, "publisher": {"author": "a"}, "later": [1]},
        "model": {
            **{"modelName": "old", "handler": "service:handle", "modelVersion": "0.1", "description": "d"},
            **{"sourceVocab": "v.pt", "later": {}},
        },
    }
    for name, told in {"old": json.dumps(old), "bare": ""}.items():
        with zipfile.ZipFile(house.store / f"{name}.mar", "w") as archive:
            archive.writestr("service.py", SERVICE)
            if told:
                archive.writestr(MANIFEST, told)
    assert register(server, "old.mar", "old") == 200
    assert server.describe("old")["modelVersion"] == "0.1"
    assert server.ask("/predictions/old", b"x").status == 200
    told = "/models?url=bare.mar&model_name=bare&handler=service:handle&initial_workers=0"
    assert server.manage("POST", told).status == 200
    assert server.describe("bare")["modelName"] == "bare"


@pytest.mark.row("A13")
def test_an_entry_outside_the_archive_is_refused(server: Running) -> None:
    house = server.house
    house.archive("slip", SERVICE, files={"../slipped.txt": "x", "sub/../../slipped.txt": "y"})
    assert 400 <= register(server, "slip.mar", "slip") < 600
    assert server.manage("GET", "/models/slip").status == 404
    assert list(house.folder.rglob("slipped.txt")) == []
