"""``torchserve``: flags, texts and exit codes, with a fake in the place of the server process."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marserve.cli import old_servers, serve, torchserve
from marserve.cli.pidfile import PidFile
from marserve.config.kinds import ModelChoice
from marserve.config.settings import Settings


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, with the temporary folder inside and no variables that steer the command."""
    for name in [name for name in os.environ if name.startswith("TS_") or name == "LOG_LOCATION"]:
        monkeypatch.delenv(name)
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any]]]:
    told: list[tuple[Settings, dict[str, Any]]] = []
    monkeypatch.setattr(serve, "launch", lambda settings, pid_file, **how: told.append((settings, how)))
    return told


@pytest.fixture
def running(here: Path) -> Iterator[PidFile]:
    pid_file = PidFile.claim(here / ".model_server.pid")
    pid_file.record(4711)
    yield pid_file
    os.close(pid_file.descriptor)


Captured = pytest.CaptureFixture[str]


def test_version(capsys: Captured) -> None:
    assert torchserve.main(["--version"]) == 0
    assert torchserve.main(["-v"]) == 0
    assert capsys.readouterr().out == "TorchServe Version is 0.12.0\n" * 2


@pytest.mark.parametrize("arguments", [["--start", "--stop"], ["-v", "--start"], ["--nonsense"]])
def test_misuse_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        torchserve.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("start", [[], ["--start"]])
def test_start_in_the_background_returns_at_once(start: list[str], launched: list[Any], capsys: Captured) -> None:
    assert torchserve.main([*start, "--model-store", "store", "--models", "a=a.mar", "b.mar,c.mar"]) == 0
    settings, how = launched[0]
    assert how == {"announcement": "Model server started."}
    assert (settings.dialect, settings.model_store) == ("torchserve", Path("store"))
    assert settings.load_models == (ModelChoice("a", "a.mar"), ModelChoice("", "b.mar"), ModelChoice("", "c.mar"))
    assert not settings.enable_model_api
    assert capsys.readouterr().out == ""


def test_the_model_api_can_be_enabled(launched: list[Any]) -> None:
    assert torchserve.main(["--start", "--model-store", "store", "--enable-model-api"]) == 0
    assert launched[0][0].enable_model_api


def test_in_the_foreground_this_process_becomes_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class BecomeError(Exception):
        """In the place of the new start."""

    told: list[list[str]] = []

    def execv(program: str, command: list[str]) -> None:
        told.append([*command, Settings.from_json(os.read(0, 1 << 20).decode()).dialect])
        raise BecomeError

    kept = os.dup(0)
    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(BecomeError):
        torchserve.main(["--start", "--foreground", "--model-store", "store"])
    os.dup2(kept, 0)
    os.close(kept)
    assert told[0][-4:] == ["--announcement", "Model server started.", "org.pytorch.serve.ModelServer", "torchserve"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Missing mandatory parameter --model-store"),
        (["--model-store", "nowhere"], "--model-store directory not found: nowhere"),
        (["--ts-config", "nowhere", "--model-store", "store"], "--ts-config file not found: nowhere"),
        (["--model-store", "store", "--workflow-store", "no"], "--workflow-store directory not found: no"),
        (["--model-store", "nowhere", "--log-config", "no"], "--log-config file not found: {here}/no"),
        (["--model-store", "store", "--cpp-log-config", "no"], "--cpp-log-config file not found: {here}/no"),
    ],
)
def test_what_stops_a_start(
    arguments: list[str], text: str, here: Path, launched: list[Any], capsys: Captured
) -> None:
    assert torchserve.main(["--start", *arguments]) == 1
    assert capsys.readouterr().out == text.format(here=here.resolve()) + "\n"
    assert launched == []


def test_a_folder_for_temporary_files_that_is_none_stops_a_start(
    here: Path, launched: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("TEMP", "nowhere")
    assert torchserve.main(["--start", "--model-store", "store"]) == 1
    told = "Invalid temp directory: nowhere, please check TEMP environment variable.\n"
    assert (capsys.readouterr().out, launched) == (told, [])
    monkeypatch.setenv("TEMP", str(here))
    assert torchserve.main(["--start", "--model-store", "store"]) == 0


def test_a_store_in_the_named_file_satisfies_the_start_and_one_in_the_default_file_does_not(
    here: Path, launched: list[Any], capsys: Captured
) -> None:
    (here / "config.properties").write_text("model_store=store\n")
    assert torchserve.main(["--start"]) == 1
    assert capsys.readouterr().out == "Missing mandatory parameter --model-store\n"
    assert torchserve.main(["--start", "--ts-config", "config.properties"]) == 0
    assert launched[0][0].model_store == Path("store")


def test_which_file_is_read(here: Path, launched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("config.properties", 1), ("flag.properties", 2), ("variable.properties", 3)):
        (here / name).write_text(f"job_queue_size={size}")
    torchserve.main(["--start", "--model-store", "store"])
    torchserve.main(["--start", "--model-store", "store", "--ts-config", "flag.properties"])
    monkeypatch.setenv("TS_CONFIG_FILE", "variable.properties")
    torchserve.main(["--start", "--model-store", "store", "--ts-config", "flag.properties"])
    assert [settings.job_queue_size for settings, _ in launched] == [1, 2, 3]


def test_the_newest_snapshot_comes_after_a_named_file_and_before_the_plain_one(
    here: Path, launched: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    config, other = here / "logs" / "config", here / "other" / "config"
    for folder, size in ((config, 4), (other, 5)):
        folder.mkdir(parents=True)
        (folder / "20260131120000000-shutdown.cfg").write_text(
            f"job_queue_size={size}\nversion=0.12.0\ntsConfigFile=x\npython=/usr/bin/python\n"
        )
    (config / "20260131110000000-startup.cfg").write_text("job_queue_size=3")
    (here / "config.properties").write_text("job_queue_size=1")
    (here / "flag.properties").write_text("job_queue_size=2")
    start = ["--start", "--model-store", "store"]
    torchserve.main(start)
    shown = capsys.readouterr().err
    torchserve.main([*start, "--ncs"])
    torchserve.main([*start, "--no-config-snapshots", "--ts-config", "flag.properties"])
    torchserve.main([*start, "--ts-config", "flag.properties"])
    monkeypatch.setenv("LOG_LOCATION", str(here / "other"))
    torchserve.main(start)
    assert [settings.job_queue_size for settings, _ in launched] == [4, 1, 2, 2, 5]
    assert [settings.snapshots for settings, _ in launched] == [True, False, False, True, True]
    assert shown == "Restoring logs/config/20260131120000000-shutdown.cfg; --ncs starts without it.\n"


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_snapshot_decides_what_is_loaded(here: Path, mode: int, launched: list[Any], capsys: Captured) -> None:
    (here / "store" / "m.mar").touch()
    whole = '"defaultVersion":true,"minWorkers":1,"maxWorkers":1,"batchSize":1,"maxBatchDelay":100,"marName":"m.mar"'
    snapshot = here / "logs" / "config" / "20260131120000000-shutdown.cfg"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text('model_snapshot={"models":{"m":{"1.0":{' + whole + "}}}}")
    snapshot.chmod(mode)
    assert torchserve.main(["--start", "--model-store", "store", "--models", "other.mar"]) == 0
    assert [(entry.model, entry.archive) for entry in launched[0][0].model_snapshot] == [("m", "m.mar")]
    assert "--models) has no effect: model_snapshot is set" in capsys.readouterr().err

    (here / "store" / "m.mar").unlink()
    assert torchserve.main(["--start", "--model-store", "store"]) == 1
    assert capsys.readouterr().out.startswith(
        "Model archive file for model m, version 1.0 not found in model store: Model not found at: m.mar."
    )
    assert len(launched) == 1


def test_the_environment_is_stronger_than_the_command_line(
    here: Path, launched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "other").mkdir()
    (here / "config.properties").write_text("enable_envvars_config=true")
    monkeypatch.setenv("TS_MODEL_STORE", "other")
    assert torchserve.main(["--start", "--model-store", "store"]) == 0
    assert launched[0][0].model_store == Path("other")


def test_flags_without_effect_are_named_and_the_rest_is_not(
    here: Path, launched: list[Any], capsys: Captured
) -> None:
    inert = ["--ppath", "a.jar", "--workflow-store", "store"]
    satisfied = ["--ncs", "--disable-token-auth"]
    assert torchserve.main(["--start", "--model-store", "store", *inert, *satisfied]) == 0
    warned = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert warned == ["--plugins-path", "--workflow-store"]


def test_a_file_of_log4j_counts_as_far_as_it_can(here: Path, launched: list[Any], capsys: Captured) -> None:
    appender = '<File name="f" fileName="/var/log/ts/ts_log.log"><JsonLayout/></File>'
    root = '<Root level="warn"><AppenderRef ref="f"/></Root>'
    (here / "log4j.xml").write_text(
        f"<Configuration><Appenders>{appender}</Appenders><Loggers>{root}</Loggers></Configuration>"
    )
    assert torchserve.main(["--start", "--ncs", "--model-store", "store", "--log-config", "log4j.xml"]) == 0
    settings = launched[0][0]
    assert (settings.log_level, settings.log_location) == ("warning", Path("/var/log/ts"))
    assert capsys.readouterr().err == "Warning: --log-config: the JsonLayout of the appender f has no effect.\n"


def test_a_jvm_setting_is_warned_of(here: Path, launched: list[Any], capsys: Captured) -> None:
    (here / "config.properties").write_text("vmargs=-Xmx1g\nNUM_WORKERS=1\n")
    assert torchserve.main(["--start", "--model-store", "store"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Warning: config.properties line 1: vmargs has no effect")
    assert second.startswith("Warning: config.properties line 2: NUM_WORKERS has no effect")


def test_a_value_that_cannot_be_stops_the_start(here: Path, launched: list[Any], capsys: Captured) -> None:
    (here / "config.properties").write_text("job_queue_size=many")
    assert torchserve.main(["--start", "--model-store", "store"]) == 1
    assert capsys.readouterr().out == "config.properties line 1: job_queue_size=many is no whole number.\n"


@pytest.mark.parametrize("arguments", [["--model-store", "store"], ["--ts-config", "nowhere"], []])
def test_a_second_start_is_refused(
    arguments: list[str], running: PidFile, launched: list[Any], capsys: Captured
) -> None:
    assert torchserve.main(["--start", *arguments]) == 1
    assert capsys.readouterr().out == (
        "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
    )
    assert launched == []


def test_an_orphan_is_removed_and_told(here: Path, launched: list[Any], capsys: Captured) -> None:
    (here / ".model_server.pid").write_text("4711")
    assert torchserve.main(["--start", "--model-store", "store"]) == 0
    assert capsys.readouterr().out == "Removing orphan pid file.\n"
    assert len(launched) == 1


# --- stop ----------------------------------------------------------------------------------------------


def test_stop_without_a_server_leaves_the_keys_of_others(here: Path, capsys: Captured) -> None:
    (here / "key_file.json").write_text("{}")
    assert torchserve.main(["--stop"]) == 0
    assert capsys.readouterr().out == "TorchServe is not currently running.\n"
    assert (here / "key_file.json").exists()


def test_stop_after_a_server_was_killed(here: Path, capsys: Captured) -> None:
    (here / ".model_server.pid").write_text("4711")
    assert torchserve.main(["--stop"]) == 0
    assert capsys.readouterr().out == "Removing orphan pid file.\nTorchServe is not currently running.\n"
    assert not (here / ".model_server.pid").exists()


@pytest.mark.parametrize(
    ("flags", "timeout", "has_ended", "text"),
    [
        ([], 10.0, True, "TorchServe has stopped.\n"),
        (["--foreground"], 60.0, True, "TorchServe has stopped.\n"),
        (["--foreground"], 60.0, False, "Stopping TorchServe took too long.\n"),
    ],
)
def test_stop(
    running: PidFile,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    flags: list[str],
    timeout: float,
    has_ended: bool,
    text: str,
) -> None:
    asked: list[Any] = []

    def stop(server: Any, seconds: float, tell: Any) -> bool:
        asked.append((server.pid, seconds))
        return has_ended

    monkeypatch.setattr(serve, "stop", stop)
    (here / "key_file.json").write_text("{}")
    assert torchserve.main(["--stop", *flags]) == 0
    assert asked == [(4711, timeout)]
    assert capsys.readouterr().out == text
    assert not (here / "key_file.json").exists()


def test_the_pid_file_lies_in_the_temporary_folder(here: Path) -> None:
    assert old_servers.shared_pid_file() == here / ".model_server.pid"
