"""The commands as processes, with a stub for the server: start, ready, status, stop, and every way to fail."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marserve.cli.pidfile import find_server

#: Longest wait for anything here, seconds; all of it takes a fraction.
PATIENCE = 60.0

Launcher = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Start a command on a stub; whatever still runs at the end is killed by its pid file."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MARSERVE_", "TS_", "MMS_"))}
    environ |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    environ.pop("LOG_LOCATION", None)
    started: list[subprocess.Popen[str]] = []

    def start(command: str, *arguments: str, stub: str = "run") -> "subprocess.Popen[str]":
        code = (
            "import sys; from marserve.cli import serve; "
            f"serve.RUNNER = 'stub_server:{stub}'; from marserve.cli.{command} import main; sys.exit(main())"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for path in tmp_path.glob("*.pid"):
        server = find_server(path)
        if server is not None and server.is_alive():
            os.kill(server.pid, signal.SIGKILL)
            server.wait_for_end(PATIENCE)
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run(launcher: Launcher) -> Callable[..., tuple[int, str, str]]:
    """Run a command on a stub to its end; return exit code, standard output and standard error."""

    def run(command: str, *arguments: str, stub: str = "run") -> tuple[int, str, str]:
        process = launcher(command, *arguments, stub=stub)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    return run


Run = Callable[..., tuple[int, str, str]]


def pid_path(tmp_path: Path) -> Path:
    return tmp_path / f"marserve-{os.getuid()}.pid"


def server_pid(path: Path) -> int:
    return int(path.read_text().splitlines()[0])


def has_ended(pid: int) -> bool:
    """Wait until a process has ended; tell whether it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def wait_for_line(process: "subprocess.Popen[str]", line: str) -> list[str]:
    """Return what is printed before a line."""
    assert process.stdout is not None
    before = []
    for printed in iter(process.stdout.readline, ""):
        if printed == line:
            return before
        before.append(printed)
    raise AssertionError(f"{line!r} was never printed, but {before}")


# --- marserve ------------------------------------------------------------------------------------------


def test_the_life_of_a_server_in_the_background(run: Run, tmp_path: Path) -> None:
    # given a server that was started in the background
    code, out, err = run("main", "start")
    assert (code, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == "marserve is ready."
    doors = [line.partition(": ")[0] for line in lines[:3]]
    assert doors == ["inference", "management", "metrics"]
    pid = server_pid(pid_path(tmp_path))
    log = tmp_path / f"marserve-{os.getuid()}.log"
    assert lines[3] == f"pid {pid}, log {log}; `marserve stop` ends it."
    assert "the stub serves native" in log.read_text()
    assert os.getsid(pid) == pid, "a signal to the terminal's session would reach it"

    # when its state is asked for, then it is told, models included
    code, out, _ = run("main", "status")
    assert code == 0
    assert out.splitlines()[0] == f"marserve is running, pid {pid}."
    assert "ping: Healthy, passing on []" in out.splitlines()
    assert out.splitlines()[-1] == "fizbuz\t1.0\t1 of 1 ready\t\t"

    # and a second one is refused
    code, out, err = run("main", "start")
    assert (code, out) == (1, "")
    assert f"A server is running already: pid {pid}" in err

    # when it is stopped, then it is gone
    assert run("main", "stop") == (0, "marserve has stopped.\n", "")
    assert has_ended(pid)
    assert not pid_path(tmp_path).exists()
    assert run("main", "status") == (3, "marserve is not running.\n", "")


def test_settings_reach_the_server_and_its_log_its_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "my logs"
    code, out, _ = run("main", "start", "--dialect", "torchserve", "--set", f"log_location={folder}")
    assert code == 0
    assert f"log {folder / 'marserve.log'};" in out
    assert (folder / "marserve.log").read_text().count("the stub serves torchserve") == 1


def test_a_folder_where_the_command_was_typed_is_not_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "marserve").mkdir()
    (tmp_path / "marserve" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong one')")
    # The command itself is started by `python -c`, which would import them; the server must not.
    code = (
        "import sys; sys.path.remove(''); from marserve.cli import serve; serve.RUNNER = 'stub_server:run'; "
        "from marserve.cli.main import main; sys.exit(main())"
    )
    environ = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    started = subprocess.run(
        [sys.executable, "-c", code, "start"], cwd=tmp_path, env=environ, capture_output=True, timeout=PATIENCE
    )
    assert started.returncode == 0, started.stderr
    server = find_server(pid_path(tmp_path))
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait_for_end(PATIENCE)
    server.close()


def test_a_server_that_cannot_start_says_why(run: Run, tmp_path: Path) -> None:
    code, out, err = run("main", "start", stub="fail")
    assert (code, out) == (1, "")
    assert err.startswith("marserve: Port 8080 is taken. Free it, or set inference_address to another. Its log is ")
    assert not pid_path(tmp_path).exists()


def test_a_server_that_crashes_while_it_starts_is_told_with_its_log(run: Run, tmp_path: Path) -> None:
    code, out, err = run("main", "start", stub="crash")
    assert (code, out) == (1, "")
    assert "The server ended with exit code 5 before it was ready." in err
    assert "marserve.stub: about to crash" in err
    assert not pid_path(tmp_path).exists()


def test_an_interrupted_start_leaves_no_server(launcher: Launcher, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "starting")
    process = launcher("main", "start", stub="never_ready")
    assert (tmp_path / "starting").read_text() == "now"
    pid = server_pid(pid_path(tmp_path))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert has_ended(pid)
    assert not pid_path(tmp_path).exists()


def test_a_server_in_the_foreground_ends_with_its_command(launcher: Launcher, run: Run, tmp_path: Path) -> None:
    process = launcher("main", "start", "--foreground")
    wait_for_line(process, "marserve is ready.\n")
    assert server_pid(pid_path(tmp_path)) == process.pid
    assert run("main", "status", "--json")[0] == 0
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "the stub serves native" in err
    assert not pid_path(tmp_path).exists()


def test_a_failure_in_the_foreground_is_told_once(run: Run, tmp_path: Path) -> None:
    code, out, err = run("main", "start", "--foreground", stub="fail")
    assert (code, out) == (1, "")
    assert err == "marserve: Port 8080 is taken. Free it, or set inference_address to another.\n"


def test_a_server_that_does_not_finish_is_asked_again(run: Run, tmp_path: Path) -> None:
    assert run("main", "start", stub="stubborn")[0] == 0
    code, out, err = run("main", "stop", "--timeout", "0.1")
    assert (code, out) == (0, "marserve has stopped.\n")
    assert err == "It has not ended after 0.1 s. Asking it to end at once.\n"


def test_a_killed_server_counts_as_stopped_and_can_be_started_again(run: Run, tmp_path: Path) -> None:
    assert run("main", "start")[0] == 0
    pid = server_pid(pid_path(tmp_path))
    server = find_server(pid_path(tmp_path))
    assert server is not None
    os.kill(pid, signal.SIGKILL)
    assert server.wait_for_end(PATIENCE)
    server.close()
    assert run("main", "status")[0] == 3
    assert run("main", "start")[0] == 0
    assert server_pid(pid_path(tmp_path)) != pid


def test_two_servers_with_pid_files_of_their_own(run: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "one.pid", tmp_path / "two.pid"
    assert run("main", "start", "--pid-file", str(one))[0] == 0
    assert run("main", "start", "--pid-file", str(two))[0] == 0
    assert run("main", "stop", "--pid-file", str(one))[0] == 0
    assert run("main", "status", "--pid-file", str(one))[0] == 3
    code, out, _ = run("main", "status", "--pid-file", str(two), "--json")
    assert (code, json.loads(out)["pid"]) == (0, server_pid(two))


# --- the old commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "dialect", "refusal", "stopped", "stopped_before"),
    [
        (
            "torchserve",
            "torchserve",
            "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n",
            "TorchServe has stopped.\n",
            "TorchServe is not currently running.\n",
        ),
        (
            "mms",
            "mms",
            "Model server is already running, please use multi-model-server --stop to stop MMS.\n",
            "Model server stopped.\n",
            "Model server is not currently running.\n",
        ),
    ],
)
def test_the_life_of_a_server_of_an_old_command(
    launcher: Launcher,
    run: Run,
    tmp_path: Path,
    command: str,
    dialect: str,
    refusal: str,
    stopped: str,
    stopped_before: str,
) -> None:
    # given a command that returns at once, while the server goes on writing to the same pipe
    starting = launcher(command, "--start", "--model-store", str(tmp_path))
    assert starting.wait(PATIENCE) == 0
    printed = wait_for_line(starting, "Model server started.\n")
    path = tmp_path / ".model_server.pid"
    pid = int(path.read_text())
    # when it is started again, then it is refused
    assert run(command, "--start", "--model-store", str(tmp_path)) == (1, refusal, "")
    # when it is stopped, then it is gone
    assert run(command, "--stop") == (0, stopped, "")
    assert has_ended(pid)
    assert not path.exists()
    assert run(command, "--stop") == (0, stopped_before, "")
    starting.communicate(timeout=PATIENCE)
    assert any(f"marserve.stub - the stub serves {dialect}" in line for line in printed)


def test_an_old_command_in_the_foreground(launcher: Launcher, tmp_path: Path) -> None:
    process = launcher("torchserve", "--start", "--foreground", "--model-store", str(tmp_path))
    wait_for_line(process, "Model server started.\n")
    assert int((tmp_path / ".model_server.pid").read_text()) == process.pid
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_a_failure_in_the_background_reaches_the_terminal(launcher: Launcher, tmp_path: Path) -> None:
    process = launcher("torchserve", "--start", "--model-store", str(tmp_path), stub="fail")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "[ERROR] MainThread marserve.cli - Port 8080 is taken." in out
    assert not (tmp_path / ".model_server.pid").exists()
