"""Environments by what they were made from: what changes the key, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from marserve.archive import environment
from marserve.archive.environment import environment_for, environment_key
from marserve.errors import EnvironmentFault


def test_the_key_is_that_of_what_is_asked_for() -> None:
    key = environment_key(b"a==1\nb==2\n")
    assert environment_key(b"# why\nb==2\n\na==1") == key
    assert environment_key(b"a==1\nb==3\n") != key


def test_without_uv_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("a==1\n")

    with pytest.raises(EnvironmentFault, match="uv is not there"):
        environment_for(requirements, tmp_path / "environments")
