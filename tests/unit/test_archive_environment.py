"""Environments by what they were made from: what changes the key, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from marserve.archive import environment
from marserve.archive.environment import environment_for, environment_key, view_of
from marserve.errors import EnvironmentFault


def test_the_key_is_that_of_what_is_asked_for() -> None:
    key = environment_key(b"a==1\nb==2\n")
    assert environment_key(b"# why\nb==2\n\na==1") == key
    assert environment_key(b"a==1\nb==3\n") != key


@pytest.mark.parametrize("line", [b"./a.whl", b"-r more.txt", b"wheels/a.whl", b"--find-links ."])
def test_files_beside_the_requirements_belong_to_one_archive(line: bytes) -> None:
    assert environment_key(line, "/one") != environment_key(line, "/other")
    assert environment_key(b"a @ file:///wheels/a.whl", "/one") == environment_key(
        b"a @ file:///wheels/a.whl", "/other"
    )


def test_a_requirements_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"no file requirements\.txt"):
        environment_for(tmp_path / "requirements.txt", tmp_path / "environments")


def test_a_view_shows_the_archive_with_its_environment(tmp_path: Path) -> None:
    folder, made, root = tmp_path / "unpacked", tmp_path / "made", tmp_path / "environments"
    for path in (folder / "inside", folder / "venv", folder / "__pycache__", made / "bin"):
        path.mkdir(parents=True)
    (folder / "inside" / "a.txt").write_text("a")

    view = view_of(folder, made, root)

    assert sorted(path.name for path in view.iterdir()) == ["inside", "venv"]
    assert (view / "inside" / "a.txt").read_text() == "a"
    assert (view / "venv").resolve() == made
    (view / "inside").unlink()  # something that sweeps old files has been there
    assert view_of(folder, made, root) == view
    assert (view / "inside").exists()
    assert view_of(folder, tmp_path / "other", root) != view
    assert sorted(path.name for path in folder.iterdir()) == ["__pycache__", "inside", "venv"]


def test_a_file_where_the_environment_has_to_be(tmp_path: Path) -> None:
    (tmp_path / "venv").write_text("")

    with pytest.raises(EnvironmentFault, match="holds a file venv") as caught:
        view_of(tmp_path, tmp_path / "made", tmp_path / "environments")

    assert caught.value.fault == "venv"


def test_without_uv_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("a==1\n")

    with pytest.raises(EnvironmentFault, match="uv is not there"):
        environment_for(requirements, tmp_path / "environments")
