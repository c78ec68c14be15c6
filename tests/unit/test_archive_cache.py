"""The cache of unpacked archives: once per content, shared, and never half full."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from pathlib import Path

import pytest

from marserve.archive import cache as cache_module
from marserve.archive.cache import Cache, main, writable_root
from marserve.archive.manifest import MANIFEST_NAME, Manifest
from marserve.archive.signature import Signature
from marserve.errors import ArchiveError, ManifestError, SignatureError, UnsafeArchive

SIGNATURE = {
    "inputs": [{"name": "x", "shape": [], "data_type": "int64"}],
    "outputs": [{"name": "y", "shape": [], "data_type": "string"}],
}


def make_archive(path: Path, extra: dict[str, str] | None = None, family: str = "torchserve") -> Path:
    model = {"modelName": "m", "handler": "service.py"}
    if family == "torchserve":
        model["configFile"] = "model-config.yaml"
    manifest = {"model": model, **({"createdOn": "x"} if family == "torchserve" else {"modelServerVersion": "1.0"})}
    files = {
        "service.py": "def handle(data, context): return data",
        "signature.json": json.dumps(SIGNATURE),
        "model-config.yaml": "batchSize: 4\nday: 2026-01-01\n",
        MANIFEST_NAME: json.dumps(manifest),
        **(extra or {}),
    }
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    # Old enough for its digest to be remembered.
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list of archives that are really unpacked from now on."""
    done: list[Path] = []
    real = cache_module.unpack

    def unpack(archive: Path, target: Path, max_bytes: int, must_be_whole: bool) -> Manifest:
        done.append(archive)
        return real(archive, target, max_bytes, must_be_whole)

    monkeypatch.setattr(cache_module, "unpack", unpack)
    return done


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with each file that is hashed."""
    done: list[int] = []
    real = hashlib.sha256

    def sha256() -> object:
        done.append(1)
        return real()

    monkeypatch.setattr(cache_module.hashlib, "sha256", sha256)
    return done


def partials(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if "partial" in path.name]


def test_archive_is_unpacked_under_its_digest(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "m.mar")

    found = Cache(tmp_path / "cache").open(archive)

    assert found.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert found.path == tmp_path / "cache" / found.sha256
    assert (found.path / "service.py").is_file()
    assert found.manifest.model_name == "m"
    assert found.signature is not None
    assert found.config["batchSize"] == 4
    assert found.warnings == ()


def test_same_content_is_unpacked_once_whatever_its_name(tmp_path: Path, unpacked: list[Path]) -> None:
    cache = Cache(tmp_path / "cache")

    one = cache.open(make_archive(tmp_path / "one.mar"))
    two = cache.open(make_archive(tmp_path / "two.mar"))

    assert one.path == two.path
    assert unpacked == [tmp_path / "one.mar"]


def test_second_start_neither_hashes_nor_unpacks(tmp_path: Path, unpacked: list[Path], hashed: list[int]) -> None:
    archive = make_archive(tmp_path / "m.mar")

    first = Cache(tmp_path / "cache").open(archive)
    second = Cache(tmp_path / "cache").open(archive)

    assert first == second
    assert (len(unpacked), len(hashed)) == (1, 1)


def test_changed_archive_is_hashed_and_unpacked_again(tmp_path: Path, unpacked: list[Path]) -> None:
    archive = make_archive(tmp_path / "m.mar")
    cache = Cache(tmp_path / "cache")
    first = cache.open(archive)

    make_archive(archive, {"new.txt": "x"})
    second = cache.open(archive)

    assert first.path != second.path
    assert first.path.is_dir()
    assert len(unpacked) == 2


def test_digest_of_a_file_that_may_still_change_is_not_remembered(tmp_path: Path, hashed: list[int]) -> None:
    archive = make_archive(tmp_path / "m.mar")
    os.utime(archive)
    cache = Cache(tmp_path / "cache")

    cache.open(archive)
    cache.open(archive)

    assert len(hashed) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}'])
def test_broken_memory_of_digests_is_no_harm(tmp_path: Path, text: str) -> None:
    archive = make_archive(tmp_path / "m.mar")
    cache = Cache(tmp_path / "cache")
    first = cache.open(archive)
    (tmp_path / "cache" / "hashes.json").write_text(text)

    assert cache.open(archive) == first


def test_folder_that_lost_a_file_is_unpacked_again(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "m.mar")
    cache = Cache(tmp_path / "cache")
    found = cache.open(archive)
    (found.path / "service.py").unlink()

    assert (cache.open(archive).path / "service.py").is_file()
    assert partials(tmp_path / "cache") == []


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    dead = root / ".partial-dead"
    dead.mkdir(parents=True)
    (dead / "half").write_text("x")
    alive, lock = Cache(root)._new_partial()

    Cache(root).open(make_archive(tmp_path / "m.mar"))

    assert partials(root) == [alive.name]
    os.close(lock)
    Cache(root).open(tmp_path / "m.mar")
    assert partials(root) == []


def test_many_at_once_get_the_same_whole_folder(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "m.mar", {f"file{number}": "x" * number for number in range(50)})
    found: list[object] = []
    begin = threading.Barrier(8)

    def open_it() -> None:
        begin.wait()
        found.append(Cache(tmp_path / "cache").open(archive))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert all(one == found[0] for one in found)
    assert partials(tmp_path / "cache") == []


def test_folder_is_used_where_it_lies(tmp_path: Path, unpacked: list[Path]) -> None:
    folder = Cache(tmp_path / "first").open(make_archive(tmp_path / "m.mar")).path
    unpacked.clear()

    found = Cache(tmp_path / "second").open(folder)

    assert (found.path, found.sha256, found.manifest.model_name) == (folder, "", "m")
    assert unpacked == []
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ({"../evil": "x"}, UnsafeArchive),
        ({MANIFEST_NAME: "{"}, ManifestError),
        ({"signature.json": '{"inputs": [{"name": "x"}]}'}, SignatureError),
        ({"model-config.yaml": "a: [1"}, ArchiveError),
        ({"model-config.yaml": "just text"}, ArchiveError),
    ],
)
def test_refused_archive_leaves_nothing_in_the_cache(
    tmp_path: Path, extra: dict[str, str], error: type[ArchiveError]
) -> None:
    archive = make_archive(tmp_path / "m.mar", extra)

    with pytest.raises(error):
        Cache(tmp_path / "cache").open(archive)
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {"hashes.json"}


def test_an_archive_may_have_a_folder_of_its_own_and_the_cache_stays_empty(tmp_path: Path) -> None:
    archive, cache = make_archive(tmp_path / "m.mar"), Cache(tmp_path / "cache")
    one, two = (cache.open(archive, tmp_path / "models" / name) for name in ("one", "two"))

    (one.path / "service.py").write_text("changed")

    assert (one.path, two.path) == (tmp_path / "models" / "one", tmp_path / "models" / "two")
    assert (two.path / "service.py").read_text() != "changed"
    assert (one.sha256, two.config["batchSize"]) == ("", 4)
    assert not (tmp_path / "cache").exists()


def test_junk_of_its_own_is_an_empty_folder_and_a_folder_stays_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "junk.mar").write_text("junk")
    (tmp_path / "folder").mkdir()
    cache = Cache(tmp_path / "cache", is_lenient=True)

    assert list(cache.open(tmp_path / "junk.mar", tmp_path / "models" / "one").path.iterdir()) == []
    assert cache.open(tmp_path / "folder", tmp_path / "models" / "two").path == tmp_path / "folder"
    assert not (tmp_path / "models" / "two").exists()


def test_refused_archive_leaves_no_folder_of_its_own(tmp_path: Path) -> None:
    broken = make_archive(tmp_path / "broken.mar", {"signature.json": '{"inputs": [{"name": "x"}]}'})
    cut = tmp_path / "cut.mar"
    cut.write_bytes(make_archive(tmp_path / "m.mar").read_bytes()[:300])
    (tmp_path / "file").touch()

    for archive, error in ((broken, SignatureError), (cut, ArchiveError)):
        with pytest.raises(error):
            Cache(tmp_path / "cache").open(archive, tmp_path / "own")
        assert not (tmp_path / "own").exists()
    with pytest.raises(ArchiveError, match="could not be unpacked into"):
        Cache(tmp_path / "cache").open(tmp_path / "m.mar", tmp_path / "file" / "own")


def test_junk_is_an_empty_archive_to_the_lenient_alone(tmp_path: Path) -> None:
    junk = tmp_path / "junk.mar"
    junk.write_text("no archive at all")
    cache = Cache(tmp_path / "cache", is_lenient=True)

    found = cache.open(junk)

    assert (found.manifest, found.config, list(found.path.iterdir())) == (Manifest(), {}, [])
    assert cache.open(junk) == found
    with pytest.raises(ArchiveError, match="neither a zip nor a gzip file"):
        Cache(tmp_path / "cache").open(junk)
    renamed = junk.rename(tmp_path / "junk.tar.gz")
    with pytest.raises(ArchiveError, match="neither a zip nor a gzip file"):
        cache.open(renamed)


def test_files_that_the_manifest_names_may_be_missing_to_the_lenient_alone(tmp_path: Path) -> None:
    model = {"modelName": "m", "handler": "service.py", "serializedFile": "gone.pt", "configFile": "gone.yaml"}
    archive = make_archive(tmp_path / "m.mar", {MANIFEST_NAME: json.dumps({"model": model})})

    assert Cache(tmp_path / "cache", is_lenient=True).open(archive).manifest.serialized_file == "gone.pt"
    with pytest.raises(ManifestError, match="no such file"):
        Cache(tmp_path / "cache").open(archive)


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ({"model": {"modelName": "m", "configFile": "../../secret.yaml"}}, "no such file"),
        ({"runtime": "ruby", "model": {"modelName": "m"}}, "Runtime is not defined or invalid"),
    ],
)
def test_what_the_lenient_refuse_too(tmp_path: Path, manifest: dict[str, object], told: str) -> None:
    archive = make_archive(tmp_path / "m.mar", {MANIFEST_NAME: json.dumps(manifest)})

    with pytest.raises(ManifestError, match=told):
        Cache(tmp_path / "cache", is_lenient=True).open(archive)


def test_archive_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive(tmp_path / "m.mar")
    real = cache_module.unpack

    def unpack(archive: Path, target: Path, max_bytes: int, must_be_whole: bool) -> Manifest:
        manifest = real(archive, target, max_bytes, must_be_whole)
        make_archive(archive, {"new.txt": "x"})
        return manifest

    monkeypatch.setattr(cache_module, "unpack", unpack)

    with pytest.raises(ArchiveError, match="changed while it was read"):
        Cache(tmp_path / "cache").open(archive)


def test_configuration_by_its_usual_name_counts_where_the_manifest_cannot_name_it(tmp_path: Path) -> None:
    found = Cache(tmp_path / "cache").open(make_archive(tmp_path / "m.mar", family="mms"))

    assert found.manifest.family == "mms"
    assert found.config["batchSize"] == 4


def test_foreign_signature_is_told_of_and_not_used(tmp_path: Path) -> None:
    found = Cache(tmp_path / "cache").open(make_archive(tmp_path / "m.mar", {"signature.json": '{"labels": 3}'}))

    assert found.signature is None
    assert "names no inputs" in found.warnings[0]


def test_command_prints_what_it_found_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = make_archive(tmp_path / "m.mar")

    status = main(["--root", str(tmp_path / "cache"), "--archive", str(archive)])

    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert Path(found["path"]) == tmp_path / "cache" / found["sha256"]
    assert Manifest.parse(found["manifest"]).model_name == "m"
    assert Signature.parse(found["signature"]).inputs[0].name == "x"
    assert found["config"] == {"batchSize": 4, "day": "2026-01-01"}
    assert (found["family"], found["warnings"], found["source"]) == ("torchserve", [], str(archive))


def test_command_finds_archives_in_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_archive(tmp_path / "m.mar")

    status = main(["--root", str(tmp_path / "cache"), "--location", "m.mar", "--store", str(tmp_path)])

    assert status == 0
    assert json.loads(capsys.readouterr().out)["source"] == str(tmp_path / "m.mar")


@pytest.mark.parametrize(
    ("location", "kind", "message"),
    [
        ("gone.mar", "ModelNotFound", "Model not found at: gone.mar"),
        ("junk.mar", "ArchiveError", "junk.mar is neither"),
    ],
)
def test_command_prints_errors_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], location: str, kind: str, message: str
) -> None:
    (tmp_path / "junk.mar").write_text("junk")

    status = main(["--root", str(tmp_path / "cache"), "--location", location, "--store", str(tmp_path)])

    told = json.loads(capsys.readouterr().out)
    assert (status, told["error"]) == (1, kind)
    assert told["message"].startswith(message)
    assert told["hint"]


def test_command_tells_of_a_bug_as_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "open", lambda self, *given: 1 / 0)

    assert main(["--root", str(tmp_path), "--archive", "x"]) == 1

    told = capsys.readouterr()
    assert json.loads(told.out)["error"] == "Internal"
    assert "ZeroDivisionError" in told.err


def test_a_folder_that_cannot_be_had_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare, file = tmp_path / "spare", tmp_path / "file"
    file.write_text("")
    assert writable_root(tmp_path / "new" / "one", spare) == (tmp_path / "new" / "one", "")
    assert writable_root(file / "below", spare) == (spare, "Not a directory")

    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert writable_root(Path("~/.cache"), spare) == (spare, "Could not determine home directory.")
