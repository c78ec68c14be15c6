"""The files of snapshots."""

import os
import stat
from pathlib import Path

import pytest

from marserve.config.snapshot_files import newest, write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_the_one_of_the_latest_moment(tmp_path: Path) -> None:
    for name in (
        "20260131120000123-startup.cfg",
        "20260131120000124-shutdown.cfg",
        "20260131110000999-snapshot.cfg",
        "notes.txt",
        "99990131110000999-note.txt",
        "00000000000000000-1234",
    ):
        (tmp_path / name).touch()
    assert newest(tmp_path) == tmp_path / "20260131120000124-shutdown.cfg"


def test_without_any_there_is_no_newest(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None


def test_one_is_written_into_a_folder_that_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "config"
    path = write(folder, "startup", lambda name: f"name={name}\n")
    assert names(folder) == [path.name]
    assert path.read_text() == f"name={path.name}\n"
    assert path.name.endswith("-startup.cfg")


def test_its_owner_alone_can_read_it(tmp_path: Path) -> None:
    path = write(tmp_path, "startup", lambda name: "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_is_newer_than_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "99990131120000123-startup.cfg").touch()
    first = write(tmp_path, "snapshot", lambda name: "")
    second = write(tmp_path, "shutdown", lambda name: "")
    assert (first.name, second.name) == ("99990131120000124-snapshot.cfg", "99990131120000125-shutdown.cfg")
    assert newest(tmp_path) == second


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, "startup", lambda name: "text")
    assert names(tmp_path) == []


def test_nothing_has_the_name_before_it_is_whole(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def text(name: str) -> str:
        seen.append(names(tmp_path))
        return name

    write(tmp_path, "startup", text)
    assert [name[:18] for name in seen[0]] == ["00000000000000000-"]
