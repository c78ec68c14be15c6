"""The pid file: held by a lock, so that it never stands for another process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from marserve.cli import pidfile
from marserve.cli.pidfile import AlreadyRunningError, FoundServer, PidFile, find_server
from marserve.errors import ConfigError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pidfile, "_PAUSE", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.pid"


@pytest.fixture
def held(path: Path) -> Iterator[PidFile]:
    pid_file = PidFile.claim(path)
    yield pid_file
    os.close(pid_file.descriptor)


def found(path: Path) -> FoundServer:
    server = find_server(path)
    assert server is not None
    return server


def test_a_claimed_file_holds_this_process_until_told_otherwise(held: PidFile, path: Path) -> None:
    assert path.read_text() == str(os.getpid())
    held.record(7)
    assert path.read_text() == "7"
    assert not held.replaced_orphan


def test_a_second_claim_names_the_first(held: PidFile, path: Path) -> None:
    held.record(4711)
    with pytest.raises(AlreadyRunningError, match="pid 4711") as caught:
        PidFile.claim(path)
    assert caught.value.pid == 4711
    assert path.read_text() == "4711"


def test_what_is_recorded_is_found(held: PidFile, path: Path) -> None:
    held.record(7, ["inference,management http://127.0.0.1:8080", "metrics unix:/tmp/a b.sock"])
    server = found(path)
    assert server.is_alive()
    assert server.pid == 7
    assert server.addresses == [
        ("inference,management", "http://127.0.0.1:8080"),
        ("metrics", "unix:/tmp/a b.sock"),
    ]
    server.close()


def test_nothing_is_found_without_a_file(path: Path) -> None:
    assert find_server(path) is None


def test_a_file_that_nobody_holds_is_of_a_dead_server_though_its_number_lives(path: Path) -> None:
    path.write_text(str(os.getpid()))
    server = found(path)
    assert not server.is_alive()
    assert server.wait_for_end(0.0)
    server.close()


def test_an_orphan_is_replaced_and_told(path: Path) -> None:
    path.write_text("4711")
    pid_file = PidFile.claim(path)
    assert pid_file.replaced_orphan
    assert path.read_text() == str(os.getpid())
    pid_file.release()


def test_release_removes_the_file_and_lets_the_next_one_in(path: Path) -> None:
    PidFile.claim(path).release()
    assert not path.exists()
    PidFile.claim(path).release()


def test_release_leaves_the_file_of_a_successor(path: Path) -> None:
    pid_file = PidFile.claim(path)
    path.unlink()
    path.write_text("1")
    pid_file.release()
    assert path.read_text() == "1"


def test_a_lock_outlives_one_of_two_descriptors(path: Path) -> None:
    pid_file = PidFile.claim(path)
    child = os.dup(pid_file.descriptor)
    pid_file.hand_over()
    server = found(path)
    assert server.is_alive()
    os.close(child)
    assert not server.is_alive()
    server.close()


def test_looking_does_not_take_the_lock_away(held: PidFile, path: Path) -> None:
    server = found(path)
    assert server.is_alive()
    assert server.is_alive()
    server.close()


def test_waiting_ends_at_its_timeout(held: PidFile, path: Path) -> None:
    server = found(path)
    assert not server.wait_for_end(0.0)
    server.close()


def test_a_leftover_is_removed_and_a_held_file_is_not(path: Path) -> None:
    pid_file = PidFile.claim(path)
    server = found(path)
    server.remove_file()
    assert path.exists()
    os.close(pid_file.descriptor)
    server.remove_file()
    assert not path.exists()
    server.close()


@pytest.mark.parametrize("text", ["", "abc", "\x00\xff", "\n\n"])
def test_a_file_without_a_number(path: Path, text: str) -> None:
    path.write_text(text)
    server = found(path)
    assert server.pid == 0
    server.close()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("data")
    path.symlink_to(target)
    with pytest.raises(ConfigError, match="cannot be opened"):
        PidFile.claim(path)
    assert target.read_text() == "data"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its folder is not there"):
        PidFile.claim(tmp_path / "no" / "server.pid")
