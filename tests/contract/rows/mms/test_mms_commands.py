"""Rows 1 to 10: the commands of Multi Model Server, and where their configuration comes from."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pairs import PATIENCE, until
from rows import House, Product

ECHO = "def handle(data, context):\n    return ['said'] * len(data) if data else None\n"
STARTED = "Model server started."


def launched(house: House, *arguments: str, environment: dict[str, str] | None = None) -> Path:
    """Run the command in the background to its end; return the file that server and command write to."""
    console = house.folder / "console.txt"
    with console.open("wb") as stream:
        # A file: the server holds it open, and a pipe would not end with the command.
        done = subprocess.run(
            [str(house.product.original.path), *arguments],
            cwd=house.folder,
            env=house.product.environment(house.folder, environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, console.read_text()
    until("the server says that it is ready", lambda: STARTED in console.read_text())
    return console


def configured(house: House, name: str, **more: str) -> dict[str, int]:
    """Write a configuration; return the ports by door."""
    doors, settings = house.settings(more)
    (house.folder / name).write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return doors


@pytest.mark.row("M1")
@pytest.mark.parametrize("command", ["multi-model-server", "mxnet-model-server"])
def test_both_names_list_the_flags(product: Product, house: House, command: str) -> None:
    said = product.run(house.folder, command, "--help")

    assert said.returncode == 0
    for flag in (
        "--start",
        "--stop",
        "--mms-config",
        "--model-store",
        "--models",
        "--log-config",
        "--foreground",
    ):
        assert flag in said.stdout
    assert ("Please move to multi-model-server." in said.stdout) is (command == "mxnet-model-server")


@pytest.mark.row("M2")
@pytest.mark.row("M3")
@pytest.mark.row("M4")
@pytest.mark.row("M78")
def test_a_start_without_any_flag_and_its_end(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    doors = configured(house, "config.properties", model_store=str(house.store), load_models="echo.mar")
    pid_file = house.folder / ".model_server.pid"
    launched(house)
    try:
        again = product.run(house.folder, "multi-model-server", "--start")
        command = psutil.Process(int(pid_file.read_text().split()[0])).cmdline()
    finally:
        stopped = product.run(house.folder, "multi-model-server", "--stop")

    assert (again.returncode, again.stdout) == (
        1,
        "Model server is already running, please use multi-model-server --stop to stop MMS.\n",
    )
    assert "com.amazonaws.ml.mms.ModelServer" in command
    assert (stopped.returncode, stopped.stdout) == (0, "Model server stopped.\n")
    assert not pid_file.exists()
    for port in doors.values():

        def is_free(port: int = port) -> bool:
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is closing does not count
                return free.connect_ex(("127.0.0.1", port)) != 0

        until(f"nobody listens at {port}", is_free)
    once_more = product.run(house.folder, "multi-model-server", "--stop")
    assert (once_more.returncode, once_more.stdout) == (0, "Model server is not currently running.\n")


@pytest.mark.row("M3")
@pytest.mark.row("M78")
def test_in_the_foreground_the_command_ends_with_the_server(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    server = house.start("echo.mar")
    assert server.process.poll() is None
    command = psutil.Process(server.process.pid)
    processes = [command, *command.children(recursive=True)]
    assert any("com.amazonaws.ml.mms.ModelServer" in process.cmdline() for process in processes)
    stopped = product.run(house.folder, "multi-model-server", "--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "Model server stopped.\n")
    server.process.wait(PATIENCE)


@pytest.mark.row("M5")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--models", "echo.mar"], "--model-store is required to load model locally.\n"),
        (["--models", "a=echo.mar", "http://h/a.mar"], "--model-store is required to load model locally.\n"),
        (["--model-store", "no"], "--model-store directory not found: no\n"),
        (["--mms-config", "no"], "--mms-config file not found: no\n"),
    ],
)
def test_what_stops_a_start(product: Product, house: House, arguments: list[str], text: str) -> None:
    refused = product.run(house.folder, "multi-model-server", *arguments)

    assert (refused.returncode, refused.stdout) == (1, text)


@pytest.mark.row("M6")
@pytest.mark.row("M7")
@pytest.mark.row("M30")
def test_everything_in_the_store(house: House) -> None:
    house.archive("named", ECHO, file="other-file.mar")
    house.archive("old", ECHO, file="old.model")
    house.archive("ignored", ECHO, file=".hidden.mar")
    house.archive("", ECHO, file="no-name_v1.1.mar", model={"modelName": None})  # type: ignore[dict-item]
    folder = house.store / "folder"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "service.py").write_text(ECHO)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(
        '{"specificationVersion": "1.0", "runtime": "python", '
        '"model": {"modelName": "folder", "handler": "service:handle"}}'
    )
    (house.store / "broken.mar").write_text("no archive")

    server = house.start("ALL")

    listed = [model["modelName"] for model in server.manage("GET", "/models").json()["models"]]
    assert listed == ["folder", "named", "no_name_v1_1", "old"]


@pytest.mark.row("M29")
def test_a_folder_is_served_where_it_lies_and_stays(house: House) -> None:
    (house.store / "plain").mkdir()
    (house.store / "plain" / "service.py").write_text(
        "import os\ndef handle(data, context):\n    return [os.getcwd()] if data else None\n"
    )
    server = house.start()
    asked = "url=plain&model_name=plain&handler=service:handle&initial_workers=1"

    assert server.manage("POST", f"/models?{asked}").status == 200
    place = server.ask("/predictions/plain").text
    assert server.manage("DELETE", "/models/plain").status == 200

    assert Path(place).resolve() == (house.store / "plain").resolve()
    assert (house.store / "plain" / "service.py").exists()


WHERE = """
import sys

def handle(data, context):
    return [sys.prefix] if data else None
"""


@pytest.mark.row("M76")
def test_the_runtime_python3_is_the_program_of_that_name(product: Product, house: House) -> None:
    program = house.folder / "bin" / "python3"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 "$@"\n')
    program.chmod(0o755)
    house.archive("where", WHERE)
    path = product.environment(house.folder)["PATH"]
    environment = {"PATH": f"{program.parent}{os.pathsep}{path}"}
    if product.is_genuine:  # whose workers run with what is installed there: the server's package has to be
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        environment["PYTHONPATH"] = str(product.folder.parent / "lib" / version / "site-packages")
    server = house.start(environment=environment)

    places = {}
    for runtime in ("python", "python3"):
        asked = f"/models?url=where.mar&model_name={runtime}&runtime={runtime}&initial_workers=1"
        assert server.manage("POST", asked).status == 200
        assert server.describe(runtime)["runtime"] == runtime
        places[runtime] = server.ask(f"/predictions/{runtime}").text

    assert places == {"python": str(product.folder.parent), "python3": sys.base_prefix}
    if not product.is_genuine:  # there is no worker of ours for it; there, one that cannot be started
        refused = server.manage("POST", "/models?url=where.mar&model_name=old&runtime=python2")
        assert (refused.status, refused.json()["message"]) == (
            400,
            "Workers of the runtime python2 cannot be started.",
        )


@pytest.mark.row("M79")
def test_the_file_of_the_log_has_a_say(house: House) -> None:
    place, told = house.folder / "far", house.folder / "log4j2.xml"
    told.write_text(
        "<Configuration><Appenders>"
        f'<File name="own" fileName="{place}/mms_log.log"/><File name="access" fileName="{place}/access_log.log"/>'
        '</Appenders><Loggers><Logger name="ACCESS_LOG" level="info"><AppenderRef ref="access"/></Logger>'
        '<Root level="info"><AppenderRef ref="own"/></Root></Loggers></Configuration>'
    )
    house.archive("echo", ECHO)
    server = house.start("echo.mar", flags=("--log-config", str(told)))

    assert server.ask("/predictions/echo").status == 200

    access = place / "access_log.log"
    until("the access line is there", lambda: access.exists() and "GET /predictions/echo" in access.read_text())
    assert (place / "mms_log.log").exists()


@pytest.mark.row("M8")
@pytest.mark.row("M77")
def test_the_preset_of_sagemaker(product: Product, house: House) -> None:
    (house.store / "model").mkdir()
    (house.store / "model" / "service.py").write_text(
        "def handle(data, context):\n    return [bytes(data[0]['body'])] if data else None\n"
    )
    (port,) = product.original.free_ports(1)
    environment = {
        "SAGEMAKER_MODEL_STORE": str(house.store),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_RESPONSE_TIMEOUT": "60",
        "SAGEMAKER_NUM_MODEL_WORKERS": "1",
        "SAGEMAKER_HANDLER": "service:handle",
        "SAGEMAKER_MAX_RESPONSE_SIZE": "6553600",
        "SAGEMAKER_MAX_REQUEST_SIZE": "6553600",
    }
    server = house.start(
        f"model={house.store}/model",
        flags=("--mms-config", "sagemaker", "--model-store", "/"),
        config=Path("/dev/null"),
        environment=environment,
    )
    server.doors = {"inference": port, "management": port}

    said = server.ask("/invocations", b'{"a": 1}', headers={"content-type": "application/json"})
    ping, facts = server.ask("/ping"), server.ask("/execution-parameters")

    assert (said.status, said.body) == (200, b'{"a": 1}')  # nothing is decoded
    assert ping.status == 200
    if not product.is_genuine:  # there a plugin of its own does the rest
        assert ping.json() == {"Status": "Healthy"}
        assert facts.json() == {
            "MaxConcurrentTransforms": 1,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": 6,
        }


@pytest.mark.row("M8")
@pytest.mark.row("M9")
def test_which_configuration_is_read(product: Product, house: House) -> None:
    (house.folder / "config.properties").write_text("no_such_key=here\nmodel_store=$$NO_SUCH_VARIABLE$$\n")
    (house.folder / "flag.properties").write_text("model_store=$$NO_SUCH_VARIABLE$$\n")
    doors = configured(house, "variable.properties", model_store=str(house.store))
    flags = ("--mms-config", "flag.properties")

    server = house.start(
        flags=flags,
        config=Path("/dev/null"),
        environment={"MMS_CONFIG_FILE": "variable.properties"},
    )
    server.doors = doors

    assert server.ask("/ping").status == 200


@pytest.mark.row("M10")
def test_a_variable_that_is_not_set_stops_the_start(house: House) -> None:
    house.settings()
    config = house.folder / "test.properties"
    config.write_text("model_store=$$NO_SUCH_VARIABLE$$\n")

    server = house.launch(config=config)

    assert server.process.wait(PATIENCE) == (0 if house.product.is_genuine else 1)
    server.wait_for_line("Invalid Environment Variable NO_SUCH_VARIABLE")
