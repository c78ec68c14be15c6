"""The manifest: both families, all ages, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marserve.archive.manifest import (
    Manifest,
    file_model_name,
    handler_files,
    is_built_in,
    manifest_root,
    read_manifest,
    split_handler,
)
from marserve.errors import ManifestError

TORCHSERVE = {
    "createdOn": "20/11/2026 09:45:35",
    "runtime": "python3",
    "model": {
        "modelName": "densenet",
        "serializedFile": "w.pt",
        "handler": "hh:foo",
        "modelFile": "model.py",
        "modelVersion": "2.1",
        "requirementsFile": "req.txt",
        "configFile": "model-config.yaml",
        "envelope": "kserve",
    },
    "archiverVersion": "0.12.0",
}
MMS = {
    "runtime": "python",
    "model": {"modelName": "noop", "handler": "service:handle"},
    "modelServerVersion": "1.0",
    "implementationVersion": "1.0",
    "specificationVersion": "1.0",
}
MMS_0 = {
    "Model-Archive-Version": 0.1,
    "Model-Server": 0.1,
    "Engine": {"MXNet": 0.12},
    "Model": {
        "Service": "noop_service.py",
        "Signature": "sig.json",
        "Model-Name": "noop",
        "Model-Format": "MXNet-Symbolic",
        "Symbol": "noop-symbol.json",
        "Parameters": "noop-0000.params",
        "Description": "does nothing",
    },
}


def put(folder: Path, name: str, content: object = "") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_torchserve_manifest_gives_every_field() -> None:
    manifest = Manifest.parse(TORCHSERVE)

    assert manifest == Manifest(
        family="torchserve",
        model_name="densenet",
        version="2.1",
        handler="hh:foo",
        runtime="python3",
        serialized_file="w.pt",
        model_file="model.py",
        requirements_file="req.txt",
        config_file="model-config.yaml",
        envelope="kserve",
        raw=TORCHSERVE,
    )


def test_mms_manifest_has_a_default_version() -> None:
    manifest = Manifest.parse(MMS)

    assert (manifest.family, manifest.version, manifest.handler) == ("mms", "1.0", "service:handle")


def test_legacy_manifest_is_migrated() -> None:
    manifest = Manifest.parse(MMS_0)

    assert (manifest.family, manifest.version, manifest.model_name) == ("mms0", "snapshot", "noop")
    assert (manifest.handler, manifest.signature_file) == ("noop_service.py", "sig.json")
    assert (manifest.symbol_file, manifest.parameters_file) == ("noop-symbol.json", "noop-0000.params")
    assert manifest.engine == {"MXNet": 0.12}


def test_older_and_unknown_keys_are_tolerated() -> None:
    raw = {
        **MMS,
        "engine": {"engineName": "MXNet", "engineVersion": 0.12},
        "publisher": {"author": "x"},
        "somethingNew": [1],
        "model": {
            **MMS["model"],  # type: ignore[dict-item]
            "modelVersion": 1.5,
            "description": None,
            "sourceVocab": "v.txt",
            "extensions": {"parametersFile": "p", "symbolFile": "s"},
        },
    }

    manifest = Manifest.parse(raw)

    assert (manifest.version, manifest.parameters_file, manifest.symbol_file) == ("1.5", "p", "s")
    assert manifest.engine["engineName"] == "MXNet"


def test_archiver_marks_make_a_torchserve_manifest_of_an_old_layout() -> None:
    assert Manifest.parse({**MMS, "createdOn": "x"}).family == "torchserve"
    assert Manifest.parse({"model": {"modelName": "a", "handler": "b"}}).family == "torchserve"


@pytest.mark.parametrize(
    "raw",
    [
        [],
        "text",
        {"model": []},
        {"model": {"handler": ["x"]}},
        {"model": {"handler": True}},
        {"runtime": {}, "model": {}},
        {"Model": {"Model-Name": "no service"}},
        {"Model": 1},
    ],
)
def test_what_cannot_be_meant_is_refused(raw: object) -> None:
    with pytest.raises(ManifestError):
        Manifest.parse(raw)


def test_an_archive_without_manifest_gets_an_empty_one(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == Manifest()
    assert Manifest.parse({}).family == "none"


def test_manifest_is_found_in_each_of_its_places(tmp_path: Path) -> None:
    for number, name in enumerate(("MAR-INF/MANIFEST.json", "around/MAR-INF/MANIFEST.json")):
        put(tmp_path / str(number), name, MMS)
        assert read_manifest(tmp_path / str(number)).model_name == "noop"
    for number, name in enumerate(("MANIFEST.json", "around/MANIFEST.json"), 2):
        put(tmp_path / str(number), name, MMS_0)
        assert read_manifest(tmp_path / str(number)).family == "mms0"
    assert manifest_root(tmp_path / "3") == tmp_path / "3" / "around"


def test_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    put(tmp_path, "MAR-INF/MANIFEST.json", "\ufeff" + json.dumps(MMS))

    assert read_manifest(tmp_path).model_name == "noop"


@pytest.mark.parametrize("key", ["serializedFile", "modelFile", "requirementsFile", "configFile"])
def test_a_named_file_must_be_there(tmp_path: Path, key: str) -> None:
    put(tmp_path, "MAR-INF/MANIFEST.json", {"model": {"modelName": "m", "handler": "h", key: "gone.bin"}})

    with pytest.raises(ManifestError, match=rf"'gone.bin' as {key}"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, must_be_whole=False).model_name == "m"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_a_named_file_outside_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, "secret")
    put(tmp_path, "inside/MAR-INF/MANIFEST.json", {"model": {"serializedFile": name}})

    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "inside")


@pytest.mark.parametrize("text", ["", "{", '{"model": ' * 100_000, "\x00"])
def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    put(tmp_path, "MAR-INF/MANIFEST.json", text)

    with pytest.raises(ManifestError, match=r"MANIFEST\.json cannot be read as JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("service.py:handle", ("service.py", "handle")),
        ("service", ("service", "")),
        ("a/b.py", ("a/b.py", "")),
        ("C:\\a.py", ("C:\\a.py", "")),
        (":handle", (":handle", "")),
    ],
)
def test_handler_is_split(handler: str, expected: tuple[str, str]) -> None:
    assert split_handler(handler) == expected


def test_handler_files_are_looked_for_in_order() -> None:
    assert handler_files("pkg/service.py:handle")[:2] == ["pkg/service.py", "service.py"]
    assert "pkg/service.py" in handler_files("pkg.service")


def test_built_in_handlers_depend_on_the_runtime() -> None:
    assert is_built_in("image_classifier")
    assert is_built_in("TorchScriptHandler", "LSP")
    assert not is_built_in("TorchScriptHandler")
    assert not is_built_in("service.py")


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("resnet-18.mar", "resnet_18"),
        ("http://some.example/a b.mar", "a_b"),
        ("old.model", "old"),
        ("one.tar.gz", "one_tar_gz"),
        ("_folder", "_folder"),
    ],
)
def test_a_name_is_made_of_the_files(location: str, name: str) -> None:
    assert file_model_name(location) == name
