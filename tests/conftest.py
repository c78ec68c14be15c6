"""What several kinds of tests share: the worked archives, each built once a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workshop import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where this run's worked archives are built; its processes share the folder above their own."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "worked"
    folder.mkdir(exist_ok=True)
    return Workshop(folder)


@pytest.fixture(scope="session")
def worked(workshop: Workshop) -> Callable[[str], Path]:
    """Return what returns the file of a worked archive, given its name."""
    return workshop.archive


@pytest.fixture(scope="session")
def fizbuz_store(worked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the real ``fizbuz_package.mar`` alone."""
    store = tmp_path_factory.mktemp("fizbuz") / "store"
    store.mkdir()
    shutil.copy(worked("fizbuz_package"), store)
    return store
