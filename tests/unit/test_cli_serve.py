"""Running the server in this process, waiting for one in the background, and ending one: with fakes for it."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from marserve import logs
from marserve.cli import serve
from marserve.cli.pidfile import PidFile
from marserve.config.address import Address
from marserve.config.settings import Settings
from marserve.errors import ConfigError


@pytest.fixture
def pid_file(tmp_path: Path) -> PidFile:
    return PidFile.claim(tmp_path / "server.pid")


@pytest.fixture(autouse=True)
def log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)


def run_with(monkeypatch: pytest.MonkeyPatch, pid_file: PidFile, runner: Callable[..., int]) -> tuple[int, list[Any]]:
    """Run ``serve`` with a fake server; return the exit code and what it told."""
    monkeypatch.setattr(serve, "_find_runner", lambda place: runner)
    told: list[Any] = []
    return serve.serve(Settings(), pid_file, told.append, told.append), told


def test_a_server_that_runs_and_ends(monkeypatch: pytest.MonkeyPatch, pid_file: PidFile) -> None:
    def runner(settings: Settings, *, ready: Callable[[list[str]], None]) -> int:
        assert pid_file.path.exists()
        ready(["http://127.0.0.1:1"])
        return 0

    assert run_with(monkeypatch, pid_file, runner) == (0, [["http://127.0.0.1:1"]])
    assert not pid_file.path.exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError("The port is taken.", "Take another."), "The port is taken. Take another."),
        (OSError(28, "No space left on device"), "The server cannot go on: [Errno 28] No space left on device."),
        (ValueError("oh"), "The server broke: ValueError: oh. Its log has the traceback."),
    ],
)
def test_a_server_that_breaks_says_why_and_leaves_no_pid_file(
    monkeypatch: pytest.MonkeyPatch, pid_file: PidFile, error: Exception, reason: str
) -> None:
    def runner(settings: Settings, *, ready: object) -> int:
        raise error

    assert run_with(monkeypatch, pid_file, runner) == (serve.FAILED, [reason])
    assert not pid_file.path.exists()


def test_an_interrupt_is_no_failure_to_tell(monkeypatch: pytest.MonkeyPatch, pid_file: PidFile) -> None:
    def runner(settings: Settings, *, ready: object) -> int:
        raise KeyboardInterrupt

    assert run_with(monkeypatch, pid_file, runner) == (serve.INTERRUPTED, [])
    assert not pid_file.path.exists()


def test_the_runner_is_found_by_its_place() -> None:
    assert serve._find_runner("marserve.cli.serve:serve") is serve.serve  # type: ignore[comparison-overlap]


def test_a_store_must_be_a_folder_where_one_is_named(tmp_path: Path) -> None:
    serve.check_store(Settings())
    serve.check_store(Settings(model_store=tmp_path))
    with pytest.raises(ConfigError, match=r"The model store .*nowhere is no folder"):
        serve.check_store(Settings(model_store=tmp_path / "nowhere"))


def test_addresses_are_described_by_their_doors() -> None:
    shared = Address("http", "127.0.0.1", 8080)
    settings = Settings(inference_address=shared, management_address=shared)
    assert serve.describe_addresses(settings, ["http://127.0.0.1:8080", "http://127.0.0.1:8082"]) == [
        "inference,management http://127.0.0.1:8080",
        "metrics http://127.0.0.1:8082",
    ]


# --- waiting -------------------------------------------------------------------------------------------


def wait_for(message: bytes, exit_code: int, log: Path) -> list[str]:
    """Wait for a fake server that has written ``message`` into its pipe and ended."""
    receiving, sending = os.pipe()
    os.write(sending, message)
    os.close(sending)
    try:
        return serve.wait_until_ready(receiving, SimpleNamespace(wait=lambda: exit_code), log)  # type: ignore[arg-type]
    finally:
        os.close(receiving)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    return path


@pytest.mark.parametrize(("console", "has_file"), [("marserve.log", False), ("console.txt", True)])
def test_a_console_that_is_the_log_gets_no_line_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid_file: PidFile, console: str, has_file: bool
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(logs, "configure", lambda *arguments: asked.append(arguments[1]))
    monkeypatch.setattr(serve, "_find_runner", lambda place: lambda settings, ready: 0)
    (tmp_path / "marserve.log").touch()
    with open(tmp_path / console, "a") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        assert serve.serve(Settings(log_location=tmp_path), pid_file, print, print) == 0
    assert asked == [tmp_path if has_file else None]


def test_a_ready_server_tells_its_addresses(log: Path) -> None:
    assert wait_for(json.dumps({"ready": ["http://h:1"]}).encode() + b"\n", 0, log) == ["http://h:1"]


def test_a_failed_server_tells_its_reason(log: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        wait_for(json.dumps({"error": "The port is taken."}).encode() + b"\n", 1, log)
    assert str(caught.value) == f"The port is taken. Its log is {log}."


@pytest.mark.parametrize(("exit_code", "ended"), [(3, "with exit code 3"), (-9, "by signal 9")])
def test_a_server_that_says_nothing_is_judged_by_its_end_and_its_log(log: Path, exit_code: int, ended: str) -> None:
    with pytest.raises(ConfigError) as caught:
        wait_for(b"", exit_code, log)
    first, *rest = str(caught.value).splitlines()
    assert first == f"The server ended {ended} before it was ready. The end of its log, {log}:"
    assert rest == [f"line {number}" for number in range(85, 100)]


# --- stopping ------------------------------------------------------------------------------------------


class FakeServer:
    """A found server that ends after so many signals."""

    def __init__(self, pid: int, ends_after: int) -> None:
        self.pid = pid
        self.ends_after = ends_after
        self.signals: list[int] = []
        self.waits: list[float] = []
        self.is_removed = False

    def wait_for_end(self, timeout: float) -> bool:
        self.waits.append(timeout)
        return len(self.signals) >= self.ends_after

    def remove_file(self) -> None:
        self.is_removed = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    fake = FakeServer(4711, 1)

    def kill(pid: int, number: int) -> None:
        assert pid == 4711
        fake.signals.append(number)

    monkeypatch.setattr(os, "kill", kill)
    yield fake
    assert fake.is_removed


@pytest.mark.parametrize(
    ("ends_after", "signals", "sentences"),
    [
        (1, [signal.SIGTERM], 0),
        (2, [signal.SIGTERM, signal.SIGTERM], 1),
        (3, [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL], 2),
    ],
)
def test_ending_a_server_step_by_step(
    server: FakeServer, ends_after: int, signals: list[int], sentences: int
) -> None:
    server.ends_after = ends_after
    told: list[str] = []
    ended = serve.stop(server, 30.0, told.append)  # type: ignore[arg-type]
    assert ended is (ends_after < 3)
    assert server.signals == signals
    assert server.waits[0] == 30.0
    assert len(told) == sentences


def test_a_server_that_ends_just_before_the_signal_has_ended(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    server.ends_after = 0
    assert serve.stop(server, 1.0, print)  # type: ignore[arg-type]


def test_a_server_of_another_user_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    with pytest.raises(ConfigError, match="pid 4711, belongs to another user"):
        serve.stop(FakeServer(4711, 1), 1.0, print)  # type: ignore[arg-type]


def test_no_signal_goes_to_number_0_which_would_be_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    with pytest.raises(ConfigError, match="holds no number"):
        serve.stop(FakeServer(0, 1), 1.0, print)  # type: ignore[arg-type]
