"""Rows B: the ``torchserve`` command and its process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading

import psutil
import pytest

from pairs import PATIENCE, until
from rows import House, Product

#: The word among its arguments by which SageMaker's toolkit for PyTorch finds the server's process.
PROCESS = "org.pytorch.serve.ModelServer"
ECHO = "def handle(data, context):\n    return [str(row) for row in data] if data else None\n"
WHERE = """
def handle(data, context):
    return [context.system_properties["model_dir"]] if data else None
"""
WAITS = """
import os, pathlib, time

def handle(data, context):
    if data is None:
        return None
    folder = pathlib.Path(os.environ["FOLDER"])
    (folder / "begun").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return ["went"]
"""


@pytest.mark.row("B1")
@pytest.mark.row("B3")
def test_a_start_in_the_background_and_its_end(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    doors, settings = house.settings()
    config, console, keys = (house.folder / name for name in ("test.properties", "console.txt", "key_file.json"))
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    command = [str(product.folder / "torchserve"), "--start", "--ncs", "--model-store", "store"]
    command += ["--ts-config", config.name, "--models", "echo.mar"]
    with console.open("wb") as stream:
        # A file: the server holds it open, and a pipe would not end with the command.
        started = subprocess.run(
            command,
            cwd=house.folder,
            env=product.environment(house.folder),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
    try:
        assert started.returncode == 0
        until("the server says that it is ready", lambda: "Model server started." in console.read_text().splitlines())
        assert keys.exists()
        pid = int((house.folder / ".model_server.pid").read_text())
        assert PROCESS in psutil.Process(pid).cmdline()
    finally:
        stopped = product.run(house.folder, "torchserve", "--stop", "--foreground")
    assert stopped.returncode == 0
    assert not keys.exists()
    for port in doors.values():
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is closing does not count
            free.bind(("127.0.0.1", port))
    again = product.run(house.folder, "torchserve", "--stop")
    assert (again.returncode, again.stdout) == (0, "TorchServe is not currently running.\n")


@pytest.mark.row("B2")
def test_in_the_foreground_the_command_ends_with_the_server(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    server = house.start("echo.mar")
    assert server.process.poll() is None
    command = psutil.Process(server.process.pid)
    assert any(PROCESS in process.cmdline() for process in [command, *command.children(recursive=True)])
    stopped = product.run(house.folder, "torchserve", "--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    assert server.process.wait(PATIENCE) == 0


@pytest.mark.row("B4")
def test_a_second_server_is_refused(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    house.start("echo.mar")
    again = product.run(house.folder, "torchserve", "--start", "--model-store", "store")
    assert again.returncode == 1
    assert again.stdout == "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
    again = product.run(house.folder, "torchserve", "--ts-config", "nowhere")
    assert again.returncode == 1
    assert again.stdout == "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"


@pytest.mark.row("B3")
def test_a_stop_after_the_server_was_killed(product: Product, house: House) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    pid_file, keys = (house.folder / name for name in (".model_server.pid", "key_file.json"))
    pid_file.write_text(str(ended.pid))
    stopped = product.run(house.folder, "torchserve", "--stop")
    assert (stopped.returncode, stopped.stdout) == (
        0,
        "Removing orphan pid file.\nTorchServe is not currently running.\n",
    )
    assert not pid_file.exists()
    keys.write_text("{}")
    stopped = product.run(house.folder, "torchserve", "--stop", "--foreground")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe is not currently running.\n")
    assert keys.exists()


@pytest.mark.row("B6")
@pytest.mark.row("B11")
def test_the_order_and_the_texts_of_what_stops_a_start(product: Product, house: House) -> None:
    for arguments, told in (
        (["--log-config", "no", "--ts-config", "no"], f"--log-config file not found: {house.folder}/no"),
        (["--model-store", "store", "--cpp-log-config", "no"], f"--cpp-log-config file not found: {house.folder}/no"),
    ):
        refused = product.run(house.folder, "torchserve", *arguments)
        assert (refused.returncode, refused.stdout) == (1, f"{told}\n")
    refused = product.run(house.folder, "torchserve", "--ncs=1")
    assert refused.returncode == 2
    assert refused.stdout.endswith("argument --no-config-snapshots/--ncs: ignored explicit argument '1'\n")


@pytest.mark.row("H11")
def test_the_names_by_which_scripts_read_the_flags(product: Product, house: House) -> None:
    code = "from ts.arg_parser import ArgParser; print(sorted(vars(ArgParser.extract_args(['--start']))))"
    told = product.run(house.folder, "python", "-c", code).stdout
    assert told.splitlines()[-1] == str(
        sorted(
            [
                *("version", "start", "stop", "ts_config", "model_store", "workflow_store", "models", "log_config"),
                *("cpp_log_config", "foreground", "no_config_snapshots", "plugins_path", "token_auth", "model_mode"),
            ]
        )
    )


@pytest.mark.row("B5")
def test_the_version(product: Product, house: House) -> None:
    told = product.run(house.folder, "torchserve", "--version")
    assert (told.returncode, told.stdout) == (0, "TorchServe Version is 0.12.0\n")


@pytest.mark.row("B2")
def test_a_terminal_that_goes_away_ends_the_server(product: Product, house: House) -> None:
    house.archive("waits", WAITS)
    server = house.start("waits.mar", environment={"FOLDER": str(house.folder)})
    pid_file = house.folder / ".model_server.pid"
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(server.ask("/predictions/waits", "x").status))
    if not product.is_genuine:
        asking.start()
        until("the request is running", (house.folder / "begun").exists)

    os.kill(int(pid_file.read_text().split()[0]), signal.SIGHUP)
    if product.is_genuine:  # at once, whatever runs, and the file stays
        server.process.wait(PATIENCE)
        return
    server.wait_for_line("SIGHUP: draining")
    os.kill(server.process.pid, signal.SIGHUP)  # the shell tells it too
    (house.folder / "go").touch()
    asking.join(PATIENCE)
    assert (answers, server.process.wait(PATIENCE)) == ([200], 0)
    assert not pid_file.exists()


@pytest.mark.row("B2")
def test_under_nohup_it_goes_on(house: House) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what it starts inherits that
    try:
        server = house.start()
    finally:
        signal.signal(signal.SIGHUP, before)

    os.killpg(server.process.pid, signal.SIGHUP)

    assert server.ask("/ping").status == 200
    server.end()
    assert "SIGHUP" not in server.log


@pytest.mark.row("B1")
@pytest.mark.row("B3")
def test_a_start_without_standard_streams(product: Product, house: House) -> None:
    doors, settings = house.settings()
    config = house.folder / "test.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    command = "exec torchserve --start --ncs --model-store store --ts-config test.properties <&- >&- 2>&-"
    started = subprocess.run(
        ["sh", "-c", command], cwd=house.folder, env=product.environment(house.folder), timeout=PATIENCE, check=False
    )
    assert started.returncode == 0
    try:
        until("the inference door is open", lambda: is_open(doors["inference"]))
    finally:
        stopped = product.run(house.folder, "torchserve", "--stop")
    assert stopped.stdout == "TorchServe has stopped.\n"
    until("the inference door is closed", lambda: not is_open(doors["inference"]))


@pytest.mark.row("B1")
def test_temp_and_tmpdir(house: House) -> None:
    house.archive("where", WHERE)
    for name in ("temp", "tmpdir"):
        (house.folder / name).mkdir()
    folders = {variable: str(house.folder / variable.lower()) for variable in ("TEMP", "TMPDIR")}
    server = house.start("where.mar", environment=folders)
    assert server.ask("/predictions/where", "x").text.startswith(f"{house.folder}/temp/")
    assert (house.folder / "tmpdir" / ".model_server.pid").exists()


def is_open(port: int) -> bool:
    """Return whether somebody listens."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
