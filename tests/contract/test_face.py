"""The one public face: what the package promises to name, and that naming it costs nothing before it is asked for."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import marserve

ROOT = Path(__file__).resolve().parents[2]

FACE = ["Context", "InvalidData", "LoadedArchive", "PredictionException", "Service", "__version__", "load"]


def test_the_face_is_these_names():
    assert sorted(marserve.__all__) == sorted(FACE)
    assert sorted(dir(marserve)) == sorted(FACE)


@pytest.mark.parametrize("name", FACE)
def test_a_name_resolves_to_something_that_says_what_it_is(name):
    value = getattr(marserve, name)

    assert value is getattr(marserve, name)
    if name != "__version__":
        assert inspect.getdoc(value)
        assert value.__module__.startswith("marserve.")


def test_what_is_not_on_the_face_is_missing_as_from_any_module():
    with pytest.raises(AttributeError, match="NoSuchName"):
        marserve.NoSuchName  # noqa: B018


def test_the_version_is_the_package_s():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert marserve.__version__ == told["version"]


def test_importing_the_package_imports_nothing_else_of_it_and_nothing_foreign():
    # Workers in old interpreters import the package with the standard library alone.
    program = (
        "import sys; before = set(sys.modules); import marserve; "
        "print(*sorted(name for name in set(sys.modules) - before if name.partition('.')[0] not in "
        "sys.stdlib_module_names))"
    )

    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert out.stdout.split() == ["marserve"]


def test_the_package_tells_type_checkers_that_it_has_types():
    assert (Path(marserve.__file__).parent / "py.typed").is_file()
