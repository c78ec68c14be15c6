"""Rows of what archives require: installed for their own workers, in environments of their own."""

from __future__ import annotations

import json
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rows import House, Product, Running

SEEN = """
import importlib.util, json, os, sys

def handle(data, context):
    folder = context.system_properties["model_dir"]
    seen = {
        "has_venv": os.path.isdir(os.path.join(folder, "venv")),
        "is_in_venv": sys.prefix == os.path.join(folder, "venv"),
        "has_requirement": importlib.util.find_spec("tinydep") is not None,
        "files": sorted(os.listdir(folder)),
    }
    return [seen] * len(data) if data else None
"""
VENV = "useVenv: true\n"
MISSING = "tinydep @ file:///nowhere/tinydep-2.0-py3-none-any.whl\n"
#: The original's environments lack what a .pth file of its own environment names, torch among it.
ENVIRONMENT = {"PYTHONPATH": sysconfig.get_path("purelib")}


def wheel(folder: Path) -> Path:
    """Write a package that nobody has installed."""
    path = folder / "tinydep-1.0-py3-none-any.whl"
    about = "tinydep-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("tinydep.py", "SAID = 'hello'\n")
        packed.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n")
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/RECORD", "")
    return path


def archive(house: House, name: str, requirements: str = "", config: str = "", **files: str) -> None:
    """Write an archive that tells what its worker sees."""
    model = {}
    if requirements:
        files["requirements.txt"] = requirements
        model = {"requirementsFile": "requirements.txt"}
    house.archive(name, SEEN, config=config, files=files, model=model)


@pytest.fixture(scope="module", params=[True, False], ids=["installing", "leaving"])
def installs(request: pytest.FixtureRequest) -> bool:
    """Whether the server installs what archives require."""
    return bool(request.param)


@pytest.fixture(scope="module")
def server(installs: bool, product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that installs requirements, or one that does not."""
    house = House(product, tmp_path_factory.mktemp("environments"))
    needed = f"tinydep @ {wheel(house.folder).as_uri()}\n"
    archive(house, "bare", config=VENV)
    archive(house, "needy", needed)
    archive(house, "apart", needed, VENV)
    archive(house, "failing", MISSING)
    archive(house, "taken", config=VENV, venv="a file")
    yield house.start(settings={"install_py_dep_per_model": str(installs).lower()}, environment=ENVIRONMENT)
    house.close()


def seen(server: Running, name: str) -> dict[str, Any]:
    """Register a model and return what its worker sees."""
    answer = server.manage("POST", f"/models?url={name}.mar&initial_workers=1&synchronous=true")
    assert answer.status == 200, answer.text
    found: dict[str, Any] = json.loads(server.ask(f"/predictions/{name}").body)
    return found


@pytest.mark.row("D10")
def test_a_worker_runs_in_an_environment_of_its_own(server: Running) -> None:
    found = seen(server, "bare")

    assert (found["has_venv"], found["is_in_venv"], found["has_requirement"]) == (True, True, False)
    assert {"service.py", "model-config.yaml", "MAR-INF"} < set(found["files"])
    assert server.describe("bare")["useVenv"] is True


@pytest.mark.row("D10")
def test_requirements_are_installed_into_it(server: Running, installs: bool) -> None:
    found = seen(server, "apart")

    assert (found["is_in_venv"], found["has_requirement"]) == (True, installs)


@pytest.mark.row("C14")
def test_requirements_are_installed_only_when_asked_for(server: Running, installs: bool) -> None:
    found = seen(server, "needy")

    assert (found["has_venv"], found["has_requirement"]) == (False, installs)
    assert server.describe("needy")["useVenv"] is False


@pytest.mark.row("C14")
def test_requirements_that_cannot_be_installed(server: Running, installs: bool) -> None:
    if not installs:
        assert seen(server, "failing")["has_requirement"] is False
        return
    answer = server.manage("POST", "/models?url=failing.mar&model_name=renamed")

    assert answer.status == 400
    message = "Custom pip package installation failed for model renamed"
    assert answer.json() == {"code": 400, "type": "ModelException", "message": message}


@pytest.mark.row("D10")
def test_an_environment_that_cannot_be_made(server: Running) -> None:
    answer = server.manage("POST", "/models?url=taken.mar")

    assert answer.status == 400
    message = "Virtual environment creation failed for model taken"
    assert answer.json() == {"code": 400, "type": "ModelException", "message": message}
