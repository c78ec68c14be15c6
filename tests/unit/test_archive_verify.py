"""What is found wrong with an archive without running it, and what files of a folder are taken for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marserve.archive.manifest import MANIFEST_NAME, Manifest
from marserve.archive.packing import Recipe, collect, collect_mms
from marserve.archive.roles import fill
from marserve.archive.sink import MAX_BYTES
from marserve.archive.verify import problems, verify_archive
from marserve.archive.writer import Source, write_archive
from marserve.errors import ArchiveError, ManifestError

SIGNATURE = b'{"inputs": [{"name": "x", "shape": [], "data_type": "json"}], "outputs": [{"name": "y", "shape": [],'
SIGNATURE += b' "data_type": "json"}]}'


def manifest(**model: object) -> Manifest:
    return Manifest.parse({"createdOn": "x", "model": {"modelName": "m", "handler": "service.py", **model}})


SOUND: dict[str, Source] = {"service.py": b"def handle(data, context): ...", "signature.json": SIGNATURE}


def test_sound_archive_has_no_problems() -> None:
    assert problems(manifest(), SOUND) == []


@pytest.mark.parametrize(
    ("model", "change", "told"),
    [
        ({"modelName": "a b"}, {}, "model name 'a b'"),
        ({"handler": None}, {}, "names no handler"),
        ({"handler": "gone.py"}, {}, "there is no file for it"),
        ({"handler": "gone.py:handle"}, {}, "there is no file for it"),
        ({"serializedFile": "w.pt"}, {}, "names 'w.pt' as serializedFile"),
        ({}, {"service.py": b"def handle(:"}, "service.py, line 1"),
        ({}, {"service.py": b"\0"}, "service.py"),
        ({}, {"service.py": b"x = 1"}, "neither a function 'handle' nor a class"),
        ({"handler": "service:run"}, {}, "no function 'run'"),
        ({}, {"signature.json": b"{"}, "signature.json is no JSON"),
        ({}, {"signature.json": b'{"inputs": []}'}, "outputs"),
        ({"configFile": "c.yaml"}, {"c.yaml": b"a: [1"}, "c.yaml is no valid YAML"),
        ({"configFile": "c.yaml"}, {"c.yaml": b"- 1"}, "c.yaml has no keys"),
        ({"configFile": "c.yaml"}, {"c.yaml": b"python: 3.10"}, "the number 3.1"),
        ({"configFile": "c.yaml"}, {"c.yaml": b"requirements: r.txt"}, "names 'r.txt' as requirements"),
    ],
)
def test_each_problem_is_told(model: dict[str, object], change: dict[str, Source], told: str) -> None:
    found = problems(manifest(**model), {**SOUND, **change})

    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        ("service", "class Anything: ..."),
        ("service.py:run", "async def run(data, context): ..."),
        ("service:run", "try:\n  from fast import run\nexcept ImportError:\n  def run(d, c): ..."),
        ("service:run", "if True:\n  run = handle = print"),
        ("service:run", "from elsewhere import *"),
        ("service:missing", "class Service: ..."),
        ("pkg/service.py", "class Service: ..."),
        ("pkg.service", "handle: object = print"),
        ("image_classifier", "syntax error"),
        ("service", 'PATTERN = "\\d"\nclass Service: ...'),
    ],
)
def test_entry_points_are_found_in_every_way_of_naming_them(handler: str, code: str) -> None:
    entries: dict[str, Source] = {"service.py": code.encode(), "pkg/service.py": code.encode()}

    assert problems(manifest(handler=handler), entries) == []


def test_python2_handler_is_not_parsed() -> None:
    python2 = Manifest.parse({"runtime": "python2", "model": {"modelName": "m", "handler": "service"}})

    assert problems(python2, {"service.py": b"print 'hello'"}) == []


def test_unknown_runtime_is_told() -> None:
    perl = Manifest.parse({"runtime": "perl", "model": {"modelName": "m", "handler": "service"}})

    assert "perl" in problems(perl, SOUND)[0]


def test_archive_without_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("x")

    assert "no MAR-INF/MANIFEST.json" in verify_archive(tmp_path, MAX_BYTES)[0]


def test_archives_and_folders_are_verified(tmp_path: Path) -> None:
    entries = {**SOUND, MANIFEST_NAME: json.dumps({"model": {"modelName": "m", "handler": "service.py"}}).encode()}
    archive = write_archive(entries, tmp_path / "m.mar", "zip-store").path
    folder = write_archive(entries, tmp_path / "m", "no-archive").path

    assert verify_archive(archive, MAX_BYTES) == []
    assert verify_archive(folder, MAX_BYTES) == []
    assert "more than 10 bytes" in verify_archive(archive, 10)[0]
    archive.write_bytes(archive.read_bytes().replace(b"def handle", b"def bundle"))
    assert "damaged" in verify_archive(archive, MAX_BYTES)[0]


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}")
    return folder


def test_single_files_go_into_the_root_under_their_base_names(tmp_path: Path) -> None:
    folder = files(
        tmp_path, "a/w.pt", "b/hh.py", "c/model.py", "d/one.txt", "d/sub/two.txt", "e.yaml", "r.txt", "s.json"
    )
    recipe = Recipe(
        model_name="m",
        version="1.0",
        handler=f"{folder}/b/hh:run",
        serialized_file=f"{folder}/a/w.pt",
        model_file=f"{folder}/c/model.py",
        extra_files=[f"{folder}/d"],
        requirements_file=f"{folder}/r.txt",
        config_file=f"{folder}/e.yaml",
        signature_file=f"{folder}/s.json",
    )

    contents = collect(recipe)

    assert set(contents.entries) == {
        *("w.pt", "hh.py", "model.py", "one.txt", "sub/two.txt", "r.txt", "e.yaml", "signature.json", MANIFEST_NAME)
    }
    assert contents.manifest().raw["model"] == {
        "modelName": "m",
        "serializedFile": "w.pt",
        "handler": "hh:run",
        "modelFile": "model.py",
        "modelVersion": "1.0",
        "requirementsFile": "r.txt",
        "configFile": "e.yaml",
    }


def test_files_inside_the_folder_keep_their_place(tmp_path: Path) -> None:
    folder = files(
        tmp_path / "m", "pkg/service.py", "weights/w.pt", "__pycache__/x.pyc", ".git/config", "a.mar", "x.pyc"
    )
    recipe = Recipe("m", "1.0", "pkg/service.py:Service", serialized_file="weights/w.pt", folder=folder)

    contents = collect(recipe)

    assert set(contents.entries) == {"pkg/service.py", "weights/w.pt", MANIFEST_NAME}
    assert contents.manifest().handler == "pkg/service.py:Service"
    assert contents.manifest().serialized_file == "weights/w.pt"


def test_later_file_of_the_same_name_wins_and_the_author_is_told(tmp_path: Path) -> None:
    files(tmp_path, "a/x.txt", "b/x.txt", "h.py")

    contents = collect(Recipe("m", "1", f"{tmp_path}/h.py", extra_files=[f"{tmp_path}/a", f"{tmp_path}/b/x.txt"]))

    assert contents.entries["x.txt"] == tmp_path / "b/x.txt"
    assert "replaces" in contents.warnings[0]


def test_missing_file_and_bad_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"File does not exist: gone\.py"):
        collect(Recipe("m", "1", "gone.py"))
    with pytest.raises(ManifestError, match="allowed regular expression filter"):
        collect(Recipe("_m", "1", "image_classifier"))


def test_a_link_to_a_folder_above_is_walked_once(tmp_path: Path) -> None:
    folder = files(tmp_path / "m", "service.py", "sub/x.txt")
    (folder / "sub" / "up").symlink_to(folder)

    assert set(collect(Recipe("m", "1", "service.py", folder=folder)).entries) == {
        *("service.py", "sub/x.txt", MANIFEST_NAME)
    }


def test_mms_folder_is_packed_by_its_own_rules(tmp_path: Path) -> None:
    folder = files(
        tmp_path,
        *("service.py", ".hidden", "sub/deep.txt", "sub/.hidden"),
        *("MANIFEST.json", "sub/MANIFEST.json", "a.pyc", ".DS_Store", "x.DS_Store", "old.mar"),
        *(".git/x", "__pycache__/x", "__MACOSX/x", "sub/.svn/x"),
    )

    contents = collect_mms(folder, "m", "service:handle", "python2")

    assert set(contents.entries) == {"service.py", ".hidden", "sub/deep.txt", "sub/.hidden", MANIFEST_NAME}
    assert contents.manifest().raw == {
        "runtime": "python2",
        "model": {"modelName": "m", "handler": "service:handle"},
        "modelServerVersion": "1.0",
        "implementationVersion": "1.0",
        "specificationVersion": "1.0",
    }


def test_files_of_a_folder_find_their_roles(tmp_path: Path) -> None:
    folder = files(tmp_path, "digits_service.py", "digits.safetensors", "requirements.txt", "model-config.yaml")
    (folder / "network.py").write_text("class Block(nn.Module): ...\nclass Data: ...")
    (folder / "other.py").write_text("class Two(torch.nn.Module): ...\nclass More(nn.Module): ...")

    recipe, lines = fill(Recipe("digits", "1.0", "", folder=folder), Manifest())

    assert (recipe.handler, recipe.serialized_file) == ("digits_service.py", "digits.safetensors")
    assert (recipe.model_file, recipe.requirements_file) == ("network.py", "requirements.txt")
    assert recipe.config_file == "model-config.yaml"
    assert len(lines) == 5


def test_what_is_given_or_was_in_the_manifest_comes_first(tmp_path: Path) -> None:
    folder = files(tmp_path, "a_service.py", "b_service.py", "w.pt")
    before = Manifest.parse({"model": {"handler": "b_service.py"}})

    recipe, lines = fill(Recipe("m", "1", "", serialized_file="w.pt", folder=folder), before)

    assert (recipe.handler, recipe.serialized_file, lines) == ("b_service.py", "w.pt", [])


def test_several_candidates_are_never_guessed_between(tmp_path: Path) -> None:
    folder = files(tmp_path, "a_service.py", "b_service.py")

    with pytest.raises(ArchiveError, match=r"--handler could mean: a_service\.py, b_service\.py"):
        fill(Recipe("m", "1", "", folder=folder), Manifest())
