"""Environments by what they were made from: what changes the key, and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from marserve.archive import uv
from marserve.archive.environment import environment_for, environment_key, view_of, with_venv
from marserve.archive.needs import Needs
from marserve.errors import EnvironmentFault


def needs(folder: Path, text: str = "", **more: object) -> Needs:
    """Return the needs of an archive with this requirements file."""
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text(text)
    return replace(Needs(folder, requirements=folder / "requirements.txt"), **more)


def test_the_key_is_that_of_what_is_asked_for(tmp_path: Path) -> None:
    key = environment_key(needs(tmp_path / "one", "a==1\nb==2\n"))
    assert environment_key(needs(tmp_path / "two", "# why\nb==2\n\na==1")) == key
    assert environment_key(needs(tmp_path / "two", "a==1\nb==3\n")) != key
    assert environment_key(Needs(tmp_path, packages=("b==2", "a==1"))) == key


def test_the_key_is_another_alone_and_for_another_interpreter(tmp_path: Path) -> None:
    asked = needs(tmp_path, "a==1\n")
    alone = replace(asked, is_alone=True)
    keys = {environment_key(*each) for each in ((asked,), (alone,), (alone, "3.8.18 /a"), (alone, "3.8.19 /a"))}
    assert len(keys) == 4


@pytest.mark.parametrize("line", ["./a.whl", "-e more", "wheels/a.whl", "--find-links ."])
def test_files_beside_the_requirements_belong_to_one_archive(tmp_path: Path, line: str) -> None:
    one, other = needs(tmp_path / "one", line), needs(tmp_path / "other", line)
    assert environment_key(one) != environment_key(other)
    assert one.names_files
    remote = "a @ file:///wheels/a.whl"
    assert environment_key(needs(tmp_path / "one", remote)) == environment_key(needs(tmp_path / "other", remote))


@pytest.mark.parametrize("line", ["-c more.txt", "--constraint=more.txt", "-r more.txt  # why"])
def test_files_that_are_brought_along_count_by_what_is_in_them(tmp_path: Path, line: str) -> None:
    one, other = needs(tmp_path / "one", line), needs(tmp_path / "other", line)
    for folder in (one.folder, other.folder):
        (folder / "more.txt").write_text("a<2\n-r requirements.txt\n")
    assert environment_key(one) == environment_key(other)
    (other.folder / "more.txt").write_text("a<3\n")
    assert environment_key(one) != environment_key(other)


def test_a_constraint_is_no_requirement(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "more.txt").write_text("a==1\n")
    one, other = needs(tmp_path / "one", "-r more.txt"), needs(tmp_path / "other", "-c more.txt")
    assert environment_key(one) != environment_key(other)


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


def test_a_folder_of_a_models_own_gets_its_environment_inside(tmp_path: Path) -> None:
    (tmp_path / "own" / "venv").mkdir(parents=True)

    assert with_venv(tmp_path / "own", tmp_path / "made") == tmp_path / "own"

    assert (tmp_path / "own" / "venv").readlink() == tmp_path / "made"


def test_a_file_where_the_environment_has_to_be(tmp_path: Path) -> None:
    (tmp_path / "venv").write_text("")

    with pytest.raises(EnvironmentFault, match="holds a file venv") as caught:
        view_of(tmp_path, tmp_path / "made", tmp_path / "environments")

    assert caught.value.fault == "venv"
    with pytest.raises(EnvironmentFault, match="holds a file venv"):
        with_venv(tmp_path, tmp_path / "made")


def test_without_uv_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(uv.shutil, "which", lambda name: None)

    with pytest.raises(EnvironmentFault, match="uv is not there"):
        environment_for(needs(tmp_path, "a==1\n"), tmp_path / "environments")
