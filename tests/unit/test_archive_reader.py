"""Reading archives: what goes in comes out, and what is unsafe or broken leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marserve.archive import reader, sink
from marserve.archive.manifest import MANIFEST_NAME
from marserve.archive.reader import archive_format, list_entries, peek, unpack
from marserve.archive.sink import MAX_BYTES
from marserve.errors import ArchiveError, ManifestError, UnsafeArchive

MANIFEST = json.dumps({"model": {"modelName": "m", "handler": "service.py"}}).encode()


def make_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, data in entries.items():
            packed.writestr(name, data)
    return path


def make_tgz(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            packed.addfile(info, io.BytesIO(data))
    return path


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(
    archive: Path, target: Path, error: type[ArchiveError] = UnsafeArchive, match: str | None = None
) -> None:
    around = sorted(target.parent.rglob("*"))
    with pytest.raises(error, match=match):
        unpack(archive, target, MAX_BYTES)
    left = [path for path in target.parent.rglob("*") if path != target]
    assert sorted(left) == [path for path in around if path != target]


FILES = {"service.py": b"def handle(d, c): return d", "sub/deep/data.bin": bytes(range(256)), MANIFEST_NAME: MANIFEST}


def test_zip_is_unpacked(tmp_path: Path) -> None:
    manifest = unpack(make_zip(tmp_path / "m.mar", FILES), tmp_path / "out", MAX_BYTES)

    assert manifest.model_name == "m"
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("prefix", ["m/", "./m/", "./", "other.name/"])
def test_tgz_loses_its_first_folder(tmp_path: Path, prefix: str) -> None:
    members = [(tar_info(prefix + name), data) for name, data in FILES.items()]

    manifest = unpack(make_tgz(tmp_path / "m.tar.gz", members), tmp_path / "out", MAX_BYTES)

    assert manifest.model_name == "m"
    assert contents(tmp_path / "out") == FILES


def test_tgz_folder_may_hold_one_of_its_own_name(tmp_path: Path) -> None:
    archive = make_tgz(tmp_path / "m.tar.gz", [(tar_info("m", tarfile.DIRTYPE), b""), (tar_info("m/m/m"), b"x")])

    unpack(archive, tmp_path / "out", MAX_BYTES)

    assert contents(tmp_path / "out") == {"m/m": b"x"}


def test_legacy_archive_with_a_folder_around_it_is_lifted(tmp_path: Path) -> None:
    legacy = json.dumps({"Model": {"Service": "s.py", "Model-Name": "old"}}).encode()
    archive = make_zip(tmp_path / "m.model", {"old/MANIFEST.json": legacy, "old/s.py": b"x"})

    assert unpack(archive, tmp_path / "out", MAX_BYTES).version == "snapshot"
    assert set(contents(tmp_path / "out")) == {"MANIFEST.json", "s.py"}


def test_a_tgz_with_another_folder_around_its_own_is_lifted_twice(tmp_path: Path) -> None:
    archive = make_tgz(tmp_path / "m.tar.gz", [(tar_info(f"a/b/{name}"), data) for name, data in FILES.items()])

    assert unpack(archive, tmp_path / "out", MAX_BYTES).model_name == "m"
    assert contents(tmp_path / "out") == FILES


def test_folder_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "m"
    unpack(make_zip(tmp_path / "m.mar", FILES), source, MAX_BYTES)

    assert unpack(source, tmp_path / "out", MAX_BYTES).model_name == "m"
    assert contents(tmp_path / "out") == FILES


def test_archive_without_manifest_is_unpacked(tmp_path: Path) -> None:
    assert unpack(make_zip(tmp_path / "m.mar", {"a.py": b""}), tmp_path / "out", MAX_BYTES).family == "none"


def test_manifest_written_twice_counts_the_last_time(tmp_path: Path) -> None:
    archive = tmp_path / "m.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(MANIFEST_NAME, b'{"old": 1}')
        with pytest.warns(UserWarning, match="Duplicate"):
            packed.writestr(MANIFEST_NAME, MANIFEST)

    assert unpack(archive, tmp_path / "out", MAX_BYTES).model_name == "m"


BAD_NAMES = [
    "../evil",
    "a/../../evil",
    "..",
    "a/..",
    "/etc/evil",
    "//evil",
    "C:/evil",
    "c:evil",
    "..\\evil",
    "a\\b",
    "a\nb",
    "a\x7f/../../b",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_are_refused_in_a_zip(tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "m.mar", {"ok.txt": b"1", name: b"2"})

    assert_refused(archive, tmp_path / "out", match="Entry")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_are_refused_in_a_tgz(tmp_path: Path, name: str) -> None:
    archive = make_tgz(tmp_path / "m.tar.gz", [(tar_info("m/ok.txt"), b"1"), (tar_info(name), b"2")])

    assert_refused(archive, tmp_path / "out", match="Entry")


def test_a_name_that_a_reader_would_cut_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", {"good.pyXevil": b""}, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"good.pyXevil", b"good.py\0evil"))

    assert_refused(archive, tmp_path / "out", ArchiveError)


@given(st.text(alphabet=st.sampled_from("./\\:aC\0\n é"), min_size=1, max_size=12))
@settings(max_examples=300)
def test_no_name_writes_outside_of_the_target(name: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        archive = make_tgz(base / "m.tar.gz", [(tar_info("w/" + name), b"x"), (tar_info(name), b"x")])
        try:
            unpack(archive, base / "a" / "out", MAX_BYTES)
        except ArchiveError:
            assert list((base / "a" / "out").iterdir()) == []
        assert {path.name for path in base.iterdir()} == {"m.tar.gz", "a"}
        assert [path.name for path in (base / "a").iterdir()] == ["out"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused_in_a_zip(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("entry")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as packed:
        packed.writestr("first.txt", b"1")
        packed.writestr(info, "/etc/passwd")

    assert_refused(tmp_path / "m.mar", tmp_path / "out", match="holds files and folders only")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused_in_a_tgz(tmp_path: Path, kind: bytes) -> None:
    members = [(tar_info("m/first.txt"), b"1"), (tar_info("m/entry", kind, "/etc/passwd"), b"")]

    assert_refused(make_tgz(tmp_path / "m.tar.gz", members), tmp_path / "out", match="holds files and folders only")


@pytest.mark.parametrize("target", ["file", "folder"])
def test_links_are_refused_when_a_folder_is_unpacked(tmp_path: Path, target: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "file").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "m" / "entry").symlink_to(tmp_path / target)

    assert_refused(tmp_path / "m", tmp_path / "out", match="is a link")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/b", "a/./b")])
def test_names_that_clash_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = make_tgz(tmp_path / "m.tar.gz", [(tar_info(name), b"x") for name in names])

    assert_refused(archive, tmp_path / "out")


def test_more_than_the_allowed_bytes_are_refused_by_declaration(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", {"a": b"x" * 600, "b": b"y" * 600})

    with pytest.raises(UnsafeArchive, match="more than 1000 bytes"):
        unpack(archive, tmp_path / "out", 1000)
    assert list((tmp_path / "out").iterdir()) == []
    assert unpack(archive, tmp_path / "out", 1200).family == "none"


def test_more_than_the_allowed_bytes_are_refused_while_they_are_written(tmp_path: Path) -> None:
    archive = make_tgz(tmp_path / "m.tar.gz", [(tar_info(f"m/{name}"), os.urandom(600)) for name in "ab"])

    with pytest.raises(UnsafeArchive, match="more than 1000 bytes"):
        unpack(archive, tmp_path / "out", 1000)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sink, "RATIO_FLOOR", 100_000)
    data = bytes(2_000_000)
    make: dict[str, Callable[[], Path]] = {
        "zip": lambda: make_zip(tmp_path / "m", {"zeros": data}),
        "tgz": lambda: make_tgz(tmp_path / "m", [(tar_info("m/zeros"), data)]),
    }

    assert_refused(make[kind](), tmp_path / "out", match="times its own size")


def test_a_small_archive_of_zeros_is_no_bomb(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", {"zeros": bytes(2_000_000)})

    unpack(archive, tmp_path / "out", MAX_BYTES)

    assert (tmp_path / "out" / "zeros").stat().st_size == 2_000_000


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "MAX_ENTRIES", 3)

    assert_refused(make_zip(tmp_path / "m", {str(n): b"" for n in range(4)}), tmp_path / "out", match="3 entries")


def test_a_tar_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tar_info("m/a")
    info.pax_headers = {"comment": "x" * 8_000_000}

    assert_refused(make_tgz(tmp_path / "m.tar.gz", [(info, b"1")]), tmp_path / "out", match="header")


def test_what_does_not_fit_on_the_disk_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))

    assert_refused(make_zip(tmp_path / "m.mar", FILES), tmp_path / "out", ArchiveError, "has 10 free")


@pytest.mark.parametrize("kind", ["zip", "tgz"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    data = os.urandom(50_000)
    if kind == "zip":
        archive = make_zip(tmp_path / "m.mar", {**FILES, "weights": data})
    else:
        archive = make_tgz(tmp_path / "m.tar.gz", [(tar_info("m/weights"), data)])
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * keep)])

    assert_refused(archive, tmp_path / "out", ArchiveError, "damaged or cut short")


@pytest.mark.parametrize("size", [0, 1, 3, 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "m.mar").write_bytes(b"x" * size)

    assert_refused(tmp_path / "m.mar", tmp_path / "out", ArchiveError, "neither a zip nor a gzip file")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"gone.mar cannot be read"):
        archive_format(tmp_path / "gone.mar")


def test_a_wrong_check_sum_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", {"a.bin": b"0123456789" * 10}, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"0123456789", b"012345678X", 1))

    assert_refused(archive, tmp_path / "out", ArchiveError, "damaged")


def test_a_wrong_check_sum_at_the_end_of_a_tgz_is_refused(tmp_path: Path) -> None:
    archive = make_tgz(tmp_path / "m.tar.gz", [(tar_info("m/a"), b"x" * 100)])
    data = bytearray(archive.read_bytes())
    data[-6] ^= 255
    archive.write_bytes(data)

    assert_refused(archive, tmp_path / "out", ArchiveError, "damaged")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", {"a": b"x"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)

    assert_refused(archive, tmp_path / "out", ArchiveError, "encrypted")


@given(st.data())
@settings(max_examples=200)
def test_damage_anywhere_raises_nothing_but_archive_errors(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        if data.draw(st.booleans()):
            archive = make_zip(base / "m", FILES)
        else:
            archive = make_tgz(base / "m", [(tar_info("m/" + name), content) for name, content in FILES.items()])
        damaged = bytearray(archive.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        archive.write_bytes(damaged)
        try:
            unpack(archive, base / "out", MAX_BYTES)
        except ArchiveError:
            assert not (base / "out").exists() or list((base / "out").iterdir()) == []


def test_a_manifest_error_leaves_nothing_behind(tmp_path: Path) -> None:
    manifest = json.dumps({"model": {"modelName": "m", "handler": "h", "serializedFile": "gone.pt"}}).encode()

    assert_refused(
        make_zip(tmp_path / "m.mar", {MANIFEST_NAME: manifest}), tmp_path / "out", ManifestError, "gone.pt"
    )


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path, must_be_whole: bool) -> None:
        assert any(folder.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(reader, "read_manifest", interrupt)

    with pytest.raises(KeyboardInterrupt):
        unpack(make_zip(tmp_path / "m.mar", FILES), tmp_path / "out", MAX_BYTES)
    assert list((tmp_path / "out").iterdir()) == []


def test_target_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")

    with pytest.raises(ValueError, match="not empty"):
        unpack(make_zip(tmp_path / "m.mar", FILES), tmp_path / "out", MAX_BYTES)
    assert (tmp_path / "out" / "mine").read_text() == "keep"


@pytest.mark.parametrize("kind", ["zip", "tgz", "folder"])
def test_peek_unpacks_descriptions_alone(tmp_path: Path, kind: str) -> None:
    files = {"a.bin": os.urandom(3_000_000), "index_to_name.json": b"{}", **FILES, "z.json": b" " * 2_000_000}
    make: dict[str, Callable[[], object]] = {
        "zip": lambda: make_zip(tmp_path / "m", files),
        "tgz": lambda: make_tgz(tmp_path / "m", [(tar_info("m/" + name), data) for name, data in files.items()]),
        "folder": lambda: unpack(make_zip(tmp_path / "z", files), tmp_path / "m", MAX_BYTES),
    }
    make[kind]()

    assert peek(tmp_path / "m", tmp_path / "out").model_name == "m"
    assert set(contents(tmp_path / "out")) == {"index_to_name.json", MANIFEST_NAME}


def test_entries_are_listed_as_they_are_stored(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", {"zeros": bytes(1000)})
    packed = tmp_path / "m.tar.gz"
    packed.write_bytes(gzip.compress(b""))
    make_tgz(packed, [(tar_info("m/zeros"), bytes(1000))])

    (entry,) = list_entries(archive)
    assert (entry.name, entry.size, entry.method) == ("zeros", 1000, "deflated")
    assert entry.packed_size < 100
    assert [(item.name, item.size) for item in list_entries(packed)] == [("m/zeros", 1000)]
    archive.write_bytes(archive.read_bytes()[:20])
    with pytest.raises(ArchiveError, match="damaged"):
        list_entries(archive)
