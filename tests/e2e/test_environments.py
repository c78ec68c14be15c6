"""Archives that bring requirements: installed once by uv, and only for their own workers."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from live import make_archive, serving

#: Answers with what only the requirement has, and with what only the server's environment has.
NEEDY = """
import numpy
import tinydep

def handle(data, context):
    if data is None:
        return None
    return [{"said": tinydep.SAID, "numpy": numpy.arange(3).sum().item()} for _ in data]
"""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package that nobody has installed."""
    path = tmp_path / "tinydep-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("tinydep.py", "SAID = 'hello from the requirement'\n")
        packed.writestr("tinydep-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n")
        packed.writestr(
            "tinydep-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr("tinydep-1.0.dist-info/RECORD", "")
    return path


def require(store: Path, name: str, requirements: str) -> None:
    """Give an archive a requirements file."""
    manifest = store / name / "MAR-INF" / "MANIFEST.json"
    told = json.loads(manifest.read_text())
    told["model"]["requirementsFile"] = "requirements.txt"
    manifest.write_text(json.dumps(told))
    (store / name / "requirements.txt").write_text(requirements)


def test_requirements_are_installed_once_for_the_archive_that_asks(tmp_path: Path, wheel: Path) -> None:
    store = tmp_path / "store"
    for name in ("needy", "twin"):
        make_archive(store, name, NEEDY)
        require(store, name, f"tinydep @ {wheel.as_uri()}\n")
    make_archive(store, "failing", NEEDY)
    require(store, "failing", "tinydep @ file:///nowhere/tinydep-2.0-py3-none-any.whl\n")
    make_archive(store, "plain", NEEDY)
    cache = tmp_path / "cache"
    settings = {"install_py_dep_per_model": "true"}

    with serving(store, "needy", settings=settings, cache=cache) as server:
        assert server.predict("needy", {}).json() == {"said": "hello from the requirement", "numpy": 3}
        wheel.unlink()  # the twin asks for the same: nothing is installed again
        assert server.manage("POST", "/models?url=twin&initial_workers=1").status_code == 200
        assert server.predict("twin", {}).json()["said"] == "hello from the requirement"

        failed = server.manage("POST", "/models?url=failing&initial_workers=1")
        assert (failed.status_code, failed.json()["type"]) == (400, "EnvironmentFault")
        assert "nowhere" in failed.json()["message"]

        other = server.manage("POST", "/models?url=plain&initial_workers=1&synchronous=true")
        assert (other.status_code, other.json()["type"]) == (500, "LoadError")
        assert "tinydep" in other.text
    assert len([one for one in (cache / "environments").iterdir() if (one / ".ready").exists()]) == 1
