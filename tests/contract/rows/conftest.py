"""Fixtures of the rows of the feature table; see ``tests/rows.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rows import House, Product


@pytest.fixture(scope="session")
def product() -> Product:
    """Return the installation under test."""
    return Product()


@pytest.fixture
def house(product: Product, tmp_path: Path) -> Iterator[House]:
    """Return a folder with an empty store; servers that a test starts on it are ended behind it."""
    house = House(product, tmp_path)
    yield house
    house.close()


@pytest.fixture(scope="module")
def shared_house(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a folder for a server that the tests of a file share."""
    house = House(product, tmp_path_factory.mktemp("house"))
    yield house
    house.close()
