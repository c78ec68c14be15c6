"""``multi-model-server`` and ``mxnet-model-server``: flags, texts and exit codes, with a fake server process."""

import os
from pathlib import Path
from typing import Any

import pytest

from marserve.cli import mms, serve
from marserve.cli.pidfile import PidFile
from marserve.config.kinds import ALL, ModelChoice
from marserve.config.settings import Settings

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, with the temporary folder inside and no variables that steer the command."""
    for name in [name for name in os.environ if name.startswith("MMS_") or name == "LOG_LOCATION"]:
        monkeypatch.delenv(name)
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    told: list[Settings] = []
    monkeypatch.setattr(serve, "launch", lambda settings, pid_file, **how: told.append(settings))
    return told


@pytest.mark.parametrize("arguments", [[], ["--start"]])
def test_the_server_starts_with_no_flag_at_all(arguments: list[str], launched: list[Settings]) -> None:
    assert mms.main(arguments) == 0
    assert (launched[0].dialect, launched[0].default_response_timeout) == ("mms", 7200.0)


def test_the_old_name_of_the_command_is_told_to_be_old(
    launched: list[Settings], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/mxnet-model-server"])
    assert mms.main([]) == 0
    assert capsys.readouterr().out == (
        "Warning: Calling MMS with mxnet-model-server. Please move to multi-model-server.\n"
    )


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["a=a.mar", "dir"], (ModelChoice("a", "a.mar"), ModelChoice("", "dir"))),
        (["ALL"], (ModelChoice("", ALL),)),
        (["a.mar,b.mar"], (ModelChoice("", "a.mar"), ModelChoice("", "b.mar"))),
    ],
)
def test_models(models: list[str], expected: tuple[ModelChoice, ...], launched: list[Settings]) -> None:
    assert mms.main(["--model-store", "store", "--models", *models]) == 0
    assert launched[0].load_models == expected


@pytest.mark.parametrize("models", [["a.mar"], ["a=a.mar"], ["all"], ["http://h/a.mar", "b.mar"]])
def test_local_models_need_a_store_on_the_command_line(
    models: list[str], here: Path, launched: list[Settings], capsys: Captured
) -> None:
    (here / "config.properties").write_text("model_store=store")
    assert mms.main(["--models", *models]) == 1
    assert capsys.readouterr().out == "--model-store is required to load model locally.\n"
    assert launched == []


@pytest.mark.parametrize("models", [["http://h/a.mar"], ["a=HTTPS://h/a.mar"], ["ALL"]])
def test_other_models_need_none(models: list[str], launched: list[Settings]) -> None:
    assert mms.main(["--models", *models]) == 0
    assert len(launched) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--mms-config", "no"], "--mms-config file not found: no"),
        (["--model-store", "no"], "--model-store directory not found: no"),
        (["--log-config", "no"], "--log-config file not found: {here}/no"),
    ],
)
def test_what_stops_a_start(
    arguments: list[str], text: str, here: Path, launched: list[Settings], capsys: Captured
) -> None:
    assert mms.main(arguments) == 1
    assert capsys.readouterr().out == text.format(here=here) + "\n"
    assert launched == []


def test_a_temporary_folder_that_is_none(
    launched: list[Settings], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("TEMP", "no")
    assert mms.main([]) == 1
    assert capsys.readouterr().out == "Invalid temp directory: no, please check TEMP environment variable.\n"


SAGEMAKER = {
    "SAGEMAKER_MODEL_STORE": "store",
    "SAGEMAKER_BIND_TO_PORT": "8088",
    "SAGEMAKER_RESPONSE_TIMEOUT": "2",
    "SAGEMAKER_NUM_MODEL_WORKERS": "3",
    "SAGEMAKER_HANDLER": "/opt/ml/service.py:handle",
    "SAGEMAKER_MAX_RESPONSE_SIZE": "7",
    "SAGEMAKER_MAX_REQUEST_SIZE": "8",
}


def test_the_preset_of_sagemaker(launched: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SAGEMAKER.items():
        monkeypatch.setenv(name, value)
    assert mms.main(["--mms-config", "sagemaker"]) == 0
    settings = launched[0]
    assert [str(address) for address, _ in settings.listeners()] == ["http://0.0.0.0:8088"]
    assert (str(settings.model_store), settings.default_workers_per_model) == ("store", 3)
    # The first is in minutes there.
    assert (settings.default_response_timeout, settings.unregister_model_timeout) == (120.0, 2.0)
    assert (settings.max_response_size, settings.max_request_size) == (7, 8)
    assert settings.default_service_handler == "/opt/ml/service.py:handle"
    assert settings.sagemaker_endpoints
    assert not settings.decode_input_request


def test_the_preset_of_sagemaker_without_its_variables(launched: list[Settings], capsys: Captured) -> None:
    assert mms.main(["--mms-config", "sagemaker"]) == 1
    assert "Invalid Environment Variable SAGEMAKER_MODEL_STORE" in capsys.readouterr().out
    assert launched == []


def test_which_file_is_read(here: Path, launched: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("config.properties", 1), ("flag.properties", 2), ("variable.properties", 3)):
        (here / name).write_text(f"job_queue_size={size}")
    mms.main([])
    mms.main(["--mms-config", "flag.properties"])
    monkeypatch.setenv("MMS_CONFIG_FILE", "variable.properties")
    mms.main(["--mms-config", "flag.properties"])
    assert [settings.job_queue_size for settings in launched] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--port", "8080"], "It is of release 0.4; now set inference_address="),
        (["--log-file=x"], "It is of release 0.4; now set log_location="),
        (["--service", "s.py"], "model-archiver --handler"),
        (["--version"], "unrecognized argument: --version."),
    ],
)
def test_flags_of_older_releases_are_refused_with_advice(
    arguments: list[str], advice: str, launched: list[Settings], capsys: Captured
) -> None:
    assert mms.main(arguments) == 2
    assert advice in capsys.readouterr().err.splitlines()[0]
    assert launched == []


def test_the_file_of_the_log_has_a_say(here: Path, launched: list[Settings], capsys: Captured) -> None:
    (here / "log4j2.xml").write_text(
        '<Configuration><Loggers><Logger name="com.amazonaws.ml.mms" level="warn"/><Logger name="x"/></Loggers>'
        "</Configuration>"
    )
    assert mms.main(["--log-config", "log4j2.xml"]) == 0
    assert launched[0].log_level == "warning"
    assert capsys.readouterr().err == "Warning: --log-config: the logger x has no effect.\n"


def test_in_the_foreground_the_process_has_the_word_that_tools_look_for(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BecomeError(Exception):
        """In the place of the new start."""

    told: list[list[str]] = []

    def execv(program: str, command: list[str]) -> None:
        told.append([*command, Settings.from_json(os.read(0, 1 << 20).decode()).dialect])
        raise BecomeError

    kept = os.dup(0)
    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(BecomeError):
        mms.main(["--foreground"])
    os.dup2(kept, 0)
    os.close(kept)
    assert told[0][1:5] == ["-P", "-m", "marserve.cli.serve", "--runner"]
    assert told[0][-2:] == ["com.amazonaws.ml.mms.ModelServer", "mms"]


def test_start_and_stop_exclude_each_other() -> None:
    with pytest.raises(SystemExit) as caught:
        mms.main(["--start", "--stop"])
    assert caught.value.code == 2


def test_a_second_start_is_refused(here: Path, launched: list[Settings], capsys: Captured) -> None:
    first = PidFile.claim(here / ".model_server.pid")
    assert mms.main([]) == 1
    assert capsys.readouterr().out == (
        "Model server is already running, please use multi-model-server --stop to stop MMS.\n"
    )
    first.release()


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "Model server is not currently running.\n"), ("4711", "Model server already stopped.\n")],
)
def test_stop_without_a_server(content: str | None, text: str, here: Path, capsys: Captured) -> None:
    if content is not None:
        (here / ".model_server.pid").write_text(content)
    assert mms.main(["--stop"]) == 0
    assert capsys.readouterr().out == text
    assert not (here / ".model_server.pid").exists()


def test_stop(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    running = PidFile.claim(here / ".model_server.pid")
    asked: list[Any] = []
    monkeypatch.setattr(serve, "stop", lambda server, timeout, tell: asked.append(timeout) or True)
    assert mms.main(["--stop"]) == 0
    assert asked == [60.0]
    assert capsys.readouterr().out == "Model server stopped.\n"
    running.release()
