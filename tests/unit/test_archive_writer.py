"""Writing archives: equal bytes for equal input, stored weights, and nothing half written."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marserve.archive.manifest import MANIFEST_NAME
from marserve.archive.reader import unpack
from marserve.archive.sink import MAX_BYTES
from marserve.archive.writer import FORMATS, Source, output_path, write_archive
from marserve.errors import ArchiveError

MANIFEST = b'{"model": {"modelName": "m", "handler": "service.py"}}'


def sources(folder: Path) -> dict[str, Source]:
    folder.mkdir()
    (folder / "text.txt").write_bytes(b"compresses well " * 20_000)
    (folder / "weights.bin").write_bytes(os.urandom(300_000))
    (folder / "empty").write_bytes(b"")
    return {
        "text.txt": folder / "text.txt",
        "a/weights.bin": folder / "weights.bin",
        "empty": folder / "empty",
        MANIFEST_NAME: MANIFEST,
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected(entries: dict[str, Source]) -> dict[str, bytes]:
    return {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in entries.items()}


@pytest.mark.parametrize("archive_format", FORMATS)
def test_what_goes_in_comes_out(tmp_path: Path, archive_format: str) -> None:
    entries = sources(tmp_path / "in")
    output = output_path(tmp_path, "m", archive_format)

    packed = write_archive(entries, output, archive_format)

    assert (packed.path, output.exists()) == (output, True)
    assert unpack(output, tmp_path / "out", MAX_BYTES).model_name == "m"
    assert contents(tmp_path / "out") == expected(entries)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in", "out", output.name])


PARTS = st.text(alphabet=st.sampled_from("ab é-_.漢"), min_size=1, max_size=120).filter(lambda part: part.strip("."))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join).filter(lambda name: len(name.encode()) < 200)
TREES = st.dictionaries(NAMES, st.binary(max_size=2000), max_size=6)


@given(TREES, st.sampled_from(sorted(FORMATS)))
@settings(max_examples=150, deadline=None)
def test_any_tree_survives_any_format(tree: dict[str, bytes], archive_format: str) -> None:
    folders = {"/".join(name.split("/")[:end]) for name in tree for end in range(1, name.count("/") + 1)}
    entries: dict[str, Source] = {name: data for name, data in tree.items() if name not in folders}
    entries[MANIFEST_NAME] = MANIFEST
    with tempfile.TemporaryDirectory() as folder:
        output = output_path(Path(folder), "m", archive_format)
        write_archive(entries, output, archive_format)
        unpack(output, Path(folder, "out"), MAX_BYTES)
        assert contents(Path(folder, "out")) == entries


@pytest.mark.parametrize("archive_format", FORMATS)
def test_equal_input_gives_equal_bytes(tmp_path: Path, archive_format: str) -> None:
    first = sources(tmp_path / "in")
    shutil.copytree(tmp_path / "in", tmp_path / "again")
    second: dict[str, Source] = {
        name: tmp_path / "again" / source.name if isinstance(source, Path) else source
        for name, source in reversed(first.items())
    }
    os.utime(tmp_path / "again" / "text.txt", (1, 1))
    (tmp_path / "again" / "text.txt").chmod(0o600)

    one = write_archive(first, output_path(tmp_path / "in", "m", archive_format), archive_format)
    two = write_archive(second, output_path(tmp_path / "again", "m", archive_format), archive_format)

    assert one.sha256 == two.sha256
    if one.path.is_file():
        assert one.path.read_bytes() == two.path.read_bytes()


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    packed = write_archive(sources(tmp_path / "in"), tmp_path / "m.mar", "default")

    assert packed.sha256 == hashlib.sha256(packed.path.read_bytes()).hexdigest()
    assert packed.size == packed.path.stat().st_size


def test_digest_of_a_folder_is_that_of_its_listing(tmp_path: Path) -> None:
    packed = write_archive({"a": b"1", MANIFEST_NAME: MANIFEST}, tmp_path / "m", "no-archive")

    lines = [
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in (("a", b"1"), (MANIFEST_NAME, MANIFEST))
    ]
    assert packed.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_zip_is_sorted_with_fixed_times_and_rights_and_the_manifest_last(tmp_path: Path) -> None:
    write_archive(sources(tmp_path / "in"), tmp_path / "m.mar", "default")

    with zipfile.ZipFile(tmp_path / "m.mar") as packed:
        infos = packed.infolist()
    assert [info.filename for info in infos] == ["a/weights.bin", "empty", "text.txt", MANIFEST_NAME]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {0o100644}
    # Java readers cannot take a stored entry whose size stands behind its data.
    assert not any(info.flag_bits & 8 for info in infos)


def test_what_does_not_compress_is_stored(tmp_path: Path) -> None:
    entries = sources(tmp_path / "in")
    write_archive(entries, tmp_path / "m.mar", "default")
    write_archive(entries, tmp_path / "s.mar", "zip-store")

    with zipfile.ZipFile(tmp_path / "m.mar") as packed:
        methods = {info.filename: info.compress_type for info in packed.infolist()}
    assert methods["text.txt"] == zipfile.ZIP_DEFLATED
    assert methods["a/weights.bin"] == zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "s.mar") as packed:
        assert {info.compress_type for info in packed.infolist()} == {zipfile.ZIP_STORED}


def test_tgz_is_one_gzip_member_with_the_name_in_front(tmp_path: Path) -> None:
    packed = write_archive(sources(tmp_path / "in"), tmp_path / "m.tar.gz", "tgz")

    data = packed.path.read_bytes()
    assert data.startswith(b"\x1f\x8b\x08\x00\x00\x00\x00\x00")
    assert len(gzip.decompress(data)) % 512 == 0
    assert 300_000 < packed.size < 310_000
    with tarfile.open(packed.path) as members:
        assert members.getnames() == ["m/a/weights.bin", "m/empty", "m/text.txt", f"m/{MANIFEST_NAME}"]
        assert {(info.mtime, info.mode, info.uid, info.uname) for info in members} == {(315532800, 0o644, 0, "")}


@pytest.mark.parametrize(
    ("epoch", "expected_time"),
    [
        ("1700000000", (2023, 11, 14, 22, 13, 20)),
        ("5", (1980, 1, 1, 0, 0, 0)),
        ("9999999999", (2107, 12, 31, 23, 59, 58)),
    ],
)
def test_source_date_epoch_is_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str, expected_time: tuple[int, ...]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)

    write_archive({"a": b"x"}, tmp_path / "m.mar", "default")

    with zipfile.ZipFile(tmp_path / "m.mar") as packed:
        assert packed.infolist()[0].date_time == expected_time


def test_a_broken_source_date_epoch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")

    with pytest.raises(ArchiveError, match="SOURCE_DATE_EPOCH"):
        write_archive({"a": b"x"}, tmp_path / "m.mar", "default")
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    entries = sources(tmp_path / "in")

    write_archive(entries, tmp_path / "m.mar", "default", progress=lambda done, total: told.append((done, total)))

    total = sum(len(data) for data in expected(entries).values())
    assert told[-1] == (total, total)
    assert told == sorted(told)


@pytest.mark.parametrize("archive_format", FORMATS)
def test_what_is_there_stays_without_force(tmp_path: Path, archive_format: str) -> None:
    output = output_path(tmp_path, "m", archive_format)
    write_archive({"a": b"old"}, output, archive_format)
    before = contents(tmp_path)

    with pytest.raises(ArchiveError, match="already exists"):
        write_archive({"a": b"new"}, output, archive_format)
    assert contents(tmp_path) == before

    write_archive({"a": b"new"}, output, archive_format, force=True)
    assert contents(tmp_path) != before


@pytest.mark.parametrize("archive_format", FORMATS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_old_and_nothing_else(
    tmp_path: Path, archive_format: str, error: type[BaseException]
) -> None:
    output = output_path(tmp_path, "m", archive_format)
    write_archive({"a": b"old"}, output, archive_format)
    before = contents(tmp_path)

    def interrupt(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        write_archive({"a": b"new", "b": b"more"}, output, archive_format, force=True, progress=interrupt)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_a_file_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"gone\.bin"):
        write_archive({"a": tmp_path / "gone.bin"}, tmp_path / "m.mar", "default")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_grows_while_it_is_packed_is_refused(tmp_path: Path) -> None:
    growing = tmp_path / "growing"
    growing.write_bytes(os.urandom(2**21))

    def grow(done: int, total: int) -> None:
        with open(growing, "ab") as stream:
            stream.write(b"more")

    with pytest.raises(ArchiveError, match="changed while it was packed"):
        write_archive({"a": growing}, tmp_path / "m.tar.gz", "tgz", progress=grow)
    assert [path.name for path in tmp_path.iterdir()] == ["growing"]


def test_an_archive_never_holds_itself(tmp_path: Path) -> None:
    entries: dict[str, Source] = {"a": b"x", "m.tar.gz": tmp_path / "m.tar.gz"}
    first = write_archive({"a": b"x"}, tmp_path / "m.tar.gz", "tgz")

    assert write_archive(entries, tmp_path / "m.tar.gz", "tgz", force=True).sha256 == first.sha256


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_archive({"old": b"x"}, tmp_path / "m", "no-archive")

    write_archive({"new": b"y"}, tmp_path / "m", "no-archive", force=True)

    assert contents(tmp_path / "m") == {"new": b"y"}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_other_files_of_a_folder_can_be_kept(tmp_path: Path) -> None:
    write_archive({"old": b"x", "both": b"1"}, tmp_path / "m", "no-archive")

    entries: dict[str, Source] = {"both": b"2", "old": tmp_path / "m" / "old"}
    write_archive(entries, tmp_path / "m", "no-archive", force=True, keep_others=True)

    assert contents(tmp_path / "m") == {"old": b"x", "both": b"2"}


def test_a_folder_is_not_replaced_when_its_own_files_are_the_input(tmp_path: Path) -> None:
    write_archive({"old": b"x"}, tmp_path / "m", "no-archive")

    with pytest.raises(ArchiveError, match="would be replaced"):
        write_archive({"new": tmp_path / "m" / "old"}, tmp_path / "m", "no-archive", force=True)
    assert contents(tmp_path / "m") == {"old": b"x"}
