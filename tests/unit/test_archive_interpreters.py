"""Interpreters by what an archive calls them; uv's answers are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from marserve.archive import interpreters, uv
from marserve.archive.interpreters import find_interpreter, known_interpreters, program_interpreter
from marserve.errors import EnvironmentFault

SERVERS = ".".join(map(str, sys.version_info[:3]))


def listed(version: str, implementation: str = "cpython", variant: str = "default") -> dict[str, object]:
    parts = dict(zip(("major", "minor", "patch"), map(int, version.split(".")), strict=True))
    path = f"/{implementation}/{version}"
    told = {"version": version, "version_parts": parts, "path": path, "implementation": implementation}
    return {**told, "variant": variant}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What uv was asked: it knows some interpreters, finds the server's for 3.11 and nothing else."""
    found: list[list[str]] = []

    def ask_uv(arguments: list[str]) -> str | None:
        found.append(arguments)
        if arguments[1] == "list":
            known = [listed("3.13.0"), listed("3.13.0"), listed("3.13.1", variant="freethreaded"), listed("3.8.18")]
            return json.dumps([*known, listed("3.7.16"), listed("3.10.1", "pypy"), listed("3.10.13")])
        return sys.executable if arguments[-1] == "3.11" else None

    monkeypatch.setattr(interpreters, "ask_uv", ask_uv)
    return found


def untold(line: str) -> None:
    raise AssertionError(line)


def test_the_list_has_each_version_once_that_workers_run_on() -> None:
    assert [each.version for each in known_interpreters()] == ["3.8.18", "3.10.13", "3.13.0"]


def test_a_version_is_looked_for_and_never_downloaded_unasked(asked: list[list[str]]) -> None:
    assert find_interpreter("3.11", untold) == (sys.executable, SERVERS)
    assert find_interpreter(sys.executable, untold) == (sys.executable, SERVERS)
    with pytest.raises(
        EnvironmentFault, match=r"no Python 2\.7\. Workers run on: 3\.8\.18 \(/cpython/3\.8\.18\), 3\.10"
    ):
        find_interpreter("2.7", untold)
    assert all("--no-python-downloads" in arguments for arguments in asked)


def test_a_download_that_is_allowed_and_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[str]] = []

    def run_uv(arguments: list[str], folder: Path, tell: uv.Tell) -> str | None:
        tried.append(arguments)
        return "error: no network"

    monkeypatch.setattr(interpreters, "run_uv", run_uv)
    with pytest.raises(EnvironmentFault, match="cannot be downloaded: error: no network"):
        find_interpreter("3.14", untold, downloads=True)
    assert tried == [["python", "install", "3.14"]]


@pytest.mark.parametrize("wanted", ["/nowhere/python", "bin/python", "/", "./python"])
def test_a_path_has_to_be_that_of_a_program(wanted: str) -> None:
    with pytest.raises(EnvironmentFault, match="There is no interpreter"):
        find_interpreter(wanted, untold)


def test_a_program_of_the_path_stands_for_the_interpreter_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_interpreter("python3") == ""  # there is none
    program = tmp_path / "python3"
    for line, expected in (
        (f'exec {sys.executable} "$@"', ""),
        (f'exec {sys.base_prefix}/bin/python3 "$@"', f"{sys.base_prefix}/bin/python3"),
    ):
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        found = program_interpreter("python3")
        assert found == expected or Path(found).resolve() == Path(expected).resolve()
    program.write_text("#!/bin/sh\necho no Python\n")
    with pytest.raises(EnvironmentFault, match=r"python3 is no Python that runs\. Workers run on: 3"):
        program_interpreter("python3")


def test_pyenvs_interpreters_are_on_the_path_of_uv_and_its_shims_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("3.8.18", "3.10.13", "3.9.1", "mine"):
        (tmp_path / "versions" / name / "bin").mkdir(parents=True)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:/usr/bin")
    monkeypatch.setenv("VIRTUAL_ENV", "/some")

    told = uv.environment()

    first, *places = told["PATH"].split(":")
    assert first == str(Path(sys.executable).resolve().parent)
    assert places[0] == "/usr/bin"
    assert [Path(place).parent.name for place in places[1:]] == ["3.10.13", "3.9.1", "3.8.18", "mine"]
    assert "VIRTUAL_ENV" not in told
