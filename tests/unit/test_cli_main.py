"""The ``marserve`` command: what it makes of its flags, and what it prints."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from marserve import __version__
from marserve.cli import main as command
from marserve.cli import status as status_command
from marserve.cli.main import main
from marserve.cli.pidfile import PidFile
from marserve.cli.tables import print_table
from marserve.config.document import markdown
from marserve.config.settings import SETTINGS, Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MARSERVE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Take the place of the server; return what it was told."""
    told: list[Settings] = []

    def here(settings: Settings, pid_file: PidFile) -> int:
        told.append(settings)
        pid_file.release()
        return 0

    monkeypatch.setattr(command, "_start_here", here)
    return told


def start(tmp_path: Path, *flags: str) -> int:
    return main(["start", "--foreground", "--pid-file", str(tmp_path / "s.pid"), *flags])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"marserve {__version__}\n"
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"marserve {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["start", "--port", "1"], ["start", "--dialect", "triton"]])
def test_misuse_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: marserve" in capsys.readouterr().err


# --- start ---------------------------------------------------------------------------------------------


def test_flags_become_settings(tmp_path: Path, started: list[Settings]) -> None:
    code = start(
        tmp_path,
        *("--model-store", str(tmp_path), "--models", "a=a.mar", "b.mar", "--log-level", "debug"),
        *("--set", "job_queue_size=5", "--set", "cors_allowed_origin=a=b"),
    )
    assert code == 0
    settings = started[0]
    assert settings.model_store == tmp_path
    assert SETTINGS["load_models"].kind.show(settings.load_models) == "a=a.mar,b.mar"
    assert (settings.log_level, settings.job_queue_size) == ("debug", 5)
    assert (settings.dialect, settings.cors_allowed_origin) == ("native", "a=b")


def test_the_dialect_is_a_flag(tmp_path: Path, started: list[Settings]) -> None:
    assert start(tmp_path, "--dialect", "torchserve") == 0
    assert (started[0].dialect, started[0].max_batch_delay) == ("torchserve", 0.1)


def test_the_file_is_named_by_a_flag_or_else_a_variable(
    tmp_path: Path, started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("job_queue_size=1")
    two.write_text("job_queue_size=2")
    monkeypatch.setenv("MARSERVE_CONFIG_FILE", str(two))
    start(tmp_path)
    start(tmp_path, "--config", str(one))
    assert [settings.job_queue_size for settings in started] == [2, 1]


def test_no_file_is_read_unless_named(
    tmp_path: Path, started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.properties").write_text("job_queue_size=1")
    monkeypatch.chdir(tmp_path)
    assert start(tmp_path) == 0
    assert started[0].job_queue_size == 100


def test_a_warning_is_printed_and_does_not_stop(
    tmp_path: Path, started: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, "--disable-token-auth", "--set", "management_address=http://0.0.0.0:8081") == 0
    assert capsys.readouterr().err.startswith("marserve: warning: management_address http://0.0.0.0:8081 can be")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--set", "job_queue_size"], "--set job_queue_size holds no =. Write --set key=value.\n"),
        (["--set", "job_queue=1"], "command line: unknown setting job_queue. Did you mean job_queue_size?\n"),
        (["--model-store", "/no/such"], "The model store /no/such is no folder. Create it, or name another"),
        (["--config", "/no/such"], "The configuration /no/such cannot be read: No such file or directory.\n"),
    ],
)
def test_what_stops_a_start_is_said(
    tmp_path: Path,
    started: list[Settings],
    flags: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert start(tmp_path, *flags) == 1
    assert capsys.readouterr().err.startswith("marserve: " + reason)
    assert started == []
    assert not (tmp_path / "s.pid").exists()


def test_a_second_start_names_the_first(
    tmp_path: Path, started: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    first = PidFile.claim(tmp_path / "s.pid")
    assert start(tmp_path) == 1
    assert f"A server is running already: pid {os.getpid()} holds" in capsys.readouterr().err
    first.release()


def test_a_log_that_cannot_be_written_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    folder = tmp_path / "taken" / "logs"
    code = main(["start", "--pid-file", str(tmp_path / "s.pid"), "--set", f"log_location={folder}"])
    assert code == 1
    assert f"The log {folder / 'marserve.log'} cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "s.pid").exists()


# --- stop, status --------------------------------------------------------------------------------------


def test_there_is_nothing_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--pid-file", str(tmp_path / "s.pid")]) == 0
    assert capsys.readouterr().out == "marserve is not running.\n"


@pytest.mark.parametrize("content", [None, "4711"])
def test_status_without_a_server(tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.pid"
    if content is not None:
        path.write_text(content)
    assert main(["status", "--pid-file", str(path)]) == 3
    assert capsys.readouterr().out == "marserve is not running.\n"
    assert main(["status", "--json", "--pid-file", str(path)]) == 3
    assert json.loads(capsys.readouterr().out) == {"running": False}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers of a server by door and path."""
    known: dict[str, Any] = {
        "inference /ping": {"status": "Healthy"},
        "management /models?limit=100&next_page_token=0": {"models": [{"modelName": "a b"}], "nextPageToken": "1"},
        "management /models?limit=100&next_page_token=1": {"models": [], "nextPageToken": "2"},
        "management /models/a%20b/all": [
            {
                "modelName": "a b",
                "modelVersion": "1.0",
                "batchSize": 4,
                "minWorkers": 3,
                "workers": [{"status": "READY"}, {"status": "UNLOADING"}],
                "jobQueueStatus": {"remainingCapacity": 98, "pendingRequests": 2},
            }
        ],
    }
    monkeypatch.setattr(status_command, "_ask", lambda server, door, path: known[f"{door} {path}"])
    return known


def status_of(tmp_path: Path, *flags: str) -> int:
    pid_file = PidFile.claim(tmp_path / "s.pid")
    pid_file.record(7, ["inference,management http://127.0.0.1:8080"])
    code = main(["status", "--pid-file", str(tmp_path / "s.pid"), *flags])
    pid_file.release()
    return code


def test_status_of_a_server(tmp_path: Path, answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "marserve is running, pid 7.",
        "inference,management: http://127.0.0.1:8080",
        "ping: Healthy",
        "model\tversion\tworkers\tbatch size\tqueued",
        "a b\t1.0\t1 of 3 ready\t4\t2",
    ]


def test_status_tells_what_the_server_says_is_missing(
    tmp_path: Path, answers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answers["inference /ping"] = {"status": "Degraded", "reasons": ["bad.mar could not be loaded: It is broken."]}
    assert status_of(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == [
        "ping: Degraded",
        "  bad.mar could not be loaded: It is broken.",
    ]


def test_status_for_programs(tmp_path: Path, answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(tmp_path, "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert state["addresses"] == {"inference": "http://127.0.0.1:8080", "management": "http://127.0.0.1:8080"}
    assert (state["running"], state["pid"], state["ping"]) == (True, 7, {"status": "Healthy"})
    assert state["models"][0]["modelVersion"] == "1.0"


def test_status_of_a_server_that_does_not_answer(
    tmp_path: Path, answers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for key in answers:
        answers[key] = "no answer from http://127.0.0.1:8080: timed out"
    assert status_of(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "ping: no answer from http://127.0.0.1:8080: timed out",
        "models: no answer from http://127.0.0.1:8080: timed out",
    ]


# --- settings ------------------------------------------------------------------------------------------


def test_settings_as_the_docs_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown()


def test_settings_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["key", "type", "default", "unit", "environment", "meaning"]
    assert [line[0] for line in lines[1:]] == [
        key for key, setting in SETTINGS.items() if "native" in setting.dialects
    ]
    assert ["max_batch_delay", "time", "0", "ms", "MARSERVE_MAX_BATCH_DELAY"] in [line[:5] for line in lines]


def test_settings_of_another_dialect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--dialect", "mms", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["default_response_timeout"]["unit"] == "min"
    assert rows["job_queue_size"]["environment"] == "MMS_JOB_QUEUE_SIZE"
    assert rows["batch_size"]["environment"] == ""
    assert "default_response_timeout_seconds" in rows


def test_settings_in_effect_with_their_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARSERVE_BATCH_SIZE", "8")
    path = tmp_path / "my.properties"
    path.write_text("\njob_queue_size=7\n")
    assert main(["settings", "--config", str(path), "--set", "max_batch_delay=5", "--json"]) == 0
    rows = {row["key"]: (row["value"], row["source"]) for row in json.loads(capsys.readouterr().out)}
    assert rows["job_queue_size"] == ("7", f"{path} line 2")
    assert rows["batch_size"] == ("8", "environment variable MARSERVE_BATCH_SIZE")
    assert rows["max_batch_delay"] == ("0.005s", "command line")
    assert rows["drain_timeout"] == ("120s", "default")


def test_a_table_on_a_terminal_keeps_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    print_table(["key", "value"], [["allowed_urls", "[bold].*[/bold]"]])
    assert "[bold].*[/bold]" in terminal.getvalue()
    assert "\t" not in terminal.getvalue()
