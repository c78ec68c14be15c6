"""The installation under test, for the users of Multi Model Server."""

from __future__ import annotations

import pytest

from pairs import MMS
from rows import Product


@pytest.fixture(scope="session")
def product() -> Product:
    """Return the installation under test."""
    return Product(MMS)
