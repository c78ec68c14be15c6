"""What an archive says its workers run with: what is understood, and what is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from marserve.archive.manifest import Manifest
from marserve.archive.needs import Needs, needs_of
from marserve.errors import EnvironmentFault

PLAIN = Manifest("torchserve", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("requirements.txt", "mine.txt"):
        (tmp_path / name).write_text("a==1\n")
    return tmp_path


def manifest(requirements: str = "requirements.txt") -> Manifest:
    return Manifest.parse({"model": {"modelName": "m", "handler": "h.py", "requirementsFile": requirements}})


def test_an_archive_that_asks_for_nothing_gets_what_the_server_has(folder: Path) -> None:
    assert needs_of({}, manifest(""), folder, installs=True) is None
    assert needs_of({}, manifest(), folder) is None


def test_what_a_manifest_requires_comes_on_top_where_that_is_switched_on(folder: Path) -> None:
    assert needs_of({}, manifest(), folder, installs=True) == Needs(folder, requirements=folder / "requirements.txt")
    assert needs_of({"useVenv": True}, manifest(), folder) == Needs(folder)


def test_with_its_own_interpreter_the_manifests_requirements_count_always(folder: Path) -> None:
    expected = Needs(folder, "3.8", folder / "requirements.txt", is_alone=True)
    assert needs_of({"python": "3.8"}, manifest(), folder) == expected
    assert needs_of({"python": " 3.8 "}, manifest(""), folder) == Needs(folder, "3.8", is_alone=True)


def test_the_model_config_names_a_file_or_a_list(folder: Path) -> None:
    assert needs_of({"requirements": "mine.txt"}, manifest(), folder) == Needs(
        folder, requirements=folder / "mine.txt", is_alone=True
    )
    assert needs_of({"requirements": ["b", "c>=2"]}, manifest(), folder) == Needs(
        folder, packages=("b", "c>=2"), is_alone=True
    )


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"python": 3.1}, r"number 3\.1.*in quotes"),
        ({"python": 3}, "in quotes"),
        ({"python": True}, "names no interpreter"),
        ({"python": " "}, "names no interpreter"),
        ({"python": "--help"}, "names no interpreter"),
        ({"requirements": "../mine.txt"}, "neither a file"),
        ({"requirements": "/etc/passwd"}, "neither a file"),
        ({"requirements": ["a", "--index-url=x"]}, "neither a file"),
        ({"requirements": []}, "neither a file"),
        ({"requirements": {"a": 1}}, "neither a file"),
        ({"requirements": "other.txt"}, r"no file other\.txt"),
    ],
)
def test_what_cannot_be_understood_is_refused(folder: Path, config: dict[str, object], why: str) -> None:
    with pytest.raises(EnvironmentFault, match=why):
        needs_of(config, manifest(), folder)


def test_a_requirements_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"no file requirements\.txt"):
        needs_of({}, manifest(), tmp_path, installs=True)
