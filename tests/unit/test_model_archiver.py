"""The single steps of packing that scripts take from ``model_archiver``; its face is held by ``contract/rows``."""

import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from model_archiver import ModelArchiverConfig
from model_archiver.manifest_components.manifest import Manifest
from model_archiver.manifest_components.model import Model
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging import generate_model_archive, package_model
from model_archiver.model_packaging_utils import ModelExportUtils

MANIFEST = "MAR-INF/MANIFEST.json"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """Run in a folder with what is packed, and with a folder for temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path("h.py").write_text("def handle(data, context): ...\n")
    Path("w.pt").write_text("weights")
    return tmp_path


def test_the_steps_one_by_one():
    config = ModelArchiverConfig("m", "h.py:run", "1.0", serialized_file="w.pt")
    text = ModelExportUtils.generate_manifest_json(config)
    folder = ModelExportUtils.copy_artifacts(
        "m", "python", handler="h.py", serialized_file="w.pt", extra_files="", model_file=None
    )
    assert sorted(path.name for path in Path(folder).iterdir()) == ["h.py", "w.pt"]
    for _ in range(2):  # the second time over the first
        ModelExportUtils.archive(".", "m", folder, text)
    with zipfile.ZipFile("m.mar") as packed:
        assert set(packed.namelist()) == {"h.py", "w.pt", MANIFEST}
        assert packed.read(MANIFEST).decode() == text
    assert json.loads(text)["model"]["handler"] == "h.py:run"


def test_a_built_in_handler_and_a_missing_file():
    folder = ModelExportUtils.copy_artifacts("m", "python", handler="base_handler")
    assert list(Path(folder).iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"File does not exist: gone\.py"):
        ModelExportUtils.copy_artifacts("m", "python", handler="gone.py")


def test_copy_artifacts_takes_what_has_another_name_too():
    Path("r.txt").write_text("numpy")
    for name in ("requirements-file", "requirements_file", "other"):
        folder = ModelExportUtils.copy_artifacts("m", "python", handler=None, **{name: "r.txt"})
        assert [path.name for path in Path(folder).iterdir()] == ["r.txt"]


@pytest.mark.parametrize("archive_format", ["default", "tgz", "no-archive"])
def test_archive_dir_adds_a_folder_to_what_is_open(workplace, archive_format):
    source = workplace / "in" / "deep"
    source.mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (workplace / "in" / ".git").mkdir()
    (workplace / "in" / ".git" / "config").write_text("left out")
    if archive_format == "no-archive":
        ModelExportUtils.archive_dir("in", "out", archive_format, "m")
        names = [path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()]
    elif archive_format == "tgz":
        with tarfile.open("m.tar.gz", "w:gz") as packed:
            ModelExportUtils.archive_dir("in", packed, archive_format, "m")
            names = packed.getnames()
    else:
        with zipfile.ZipFile("m.mar", "w") as packed:
            ModelExportUtils.archive_dir("in", packed, archive_format, "m")
            names = packed.namelist()
    assert names == ["m/deep/a.txt" if archive_format == "tgz" else "deep/a.txt"]


def test_a_manifest_of_ones_own_is_written_as_it_is():
    for text in ("no JSON", "[]", '{"model": 5}', ""):
        package_model(ModelArchiverConfig("m", "h.py", "1.0", force=True), text)
        with zipfile.ZipFile("m.mar") as packed:
            assert packed.read(MANIFEST).decode() == text


def test_a_runtime_and_a_format_that_are_none():
    with pytest.raises(ValueError, match="'java' is not a valid RuntimeType"):
        generate_model_archive(ModelArchiverConfig("m", "h.py", "1.0", runtime="java"))
    with pytest.raises(ModelArchiverError, match="no archive format 'rar'"):
        generate_model_archive(ModelArchiverConfig("m", "h.py", "1.0", archive_format="rar"))


def test_what_is_there_is_refused_unless_it_is_to_be_overwritten(tmp_path):
    check = ModelExportUtils.check_mar_already_exists
    assert check("m", None, False) == str(tmp_path)
    assert ModelExportUtils.get_archive_export_path("a", "m", "tgz") == "a/m.tar.gz"
    Path("m.mar").write_text("")
    assert check("m", ".", True) == "."
    with pytest.raises(ModelArchiverError, match=r"m\.mar already exists\.\nPlease specify --force"):
        check("m", ".", False)


def test_names_and_folders_are_validated():
    ModelExportUtils.validate_inputs("m", ".")
    with pytest.raises(ModelArchiverError, match="regular expression"):
        ModelExportUtils.validate_inputs("a b", ".")
    with pytest.raises(ModelArchiverError, match="Given export-path gone is not a directory"):
        ModelExportUtils.validate_inputs("m", "gone")


def test_the_small_steps():
    assert ModelExportUtils.find_unique(["a.pt", "b.py"], ".pt") == "a.pt"
    assert ModelExportUtils.find_unique([], ".pt") is None
    with pytest.raises(ModelArchiverError, match=r"one \.pt file, found 2"):
        ModelExportUtils.find_unique(["a.pt", "b.pt"], ".pt")
    assert ModelExportUtils.directory_filter("code", {"__pycache__"})
    assert not ModelExportUtils.directory_filter(".git", set())
    assert ModelExportUtils.file_filter("a.py", set())
    assert not ModelExportUtils.file_filter("MANIFEST.json", set())
    assert not ModelExportUtils.file_filter("a.pyc", set())
    ModelExportUtils.make_dir("x/y")
    ModelExportUtils.make_dir("x/y")
    ModelExportUtils.clean_temp_files(["w.pt"])
    assert not Path("w.pt").exists()


def test_a_manifest_is_the_text_of_an_archive():
    model = Model("m", None, "a/h:f", model_file="b/net.py", requirements_file="c/r.txt", config_file="d/c.yaml")
    found = json.loads(str(Manifest("LSP", model)))
    assert found["model"] == json.loads(str(model))
    assert found["model"] == {
        **{"modelName": "m", "handler": "h:f", "modelFile": "net.py"},
        **{"requirementsFile": "r.txt", "configFile": "c.yaml"},
    }
    with pytest.raises(ValueError, match="java"):
        Manifest("java", model)


def test_the_command_line_is_the_config_of_last_resort(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--model-name", "m", "--version", "1", "--handler", "h"])
    generate_model_archive()
    assert Path("m.mar").is_file()
