"""Rows B: the ``torchserve`` command and its process."""

from __future__ import annotations

import pytest

from rows import House, Product

ECHO = "def handle(data, context):\n    return [str(row) for row in data] if data else None\n"


@pytest.mark.row("B4")
def test_a_second_server_is_refused(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    house.start("echo.mar")
    again = product.run(house.folder, "torchserve", "--start", "--model-store", "store")
    assert again.returncode == 1
    assert again.stdout == "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"


@pytest.mark.row("B5")
def test_the_version(product: Product, house: House) -> None:
    told = product.run(house.folder, "torchserve", "--version")
    assert (told.returncode, told.stdout.rsplit(" ", 1)[0]) == (0, "TorchServe Version is")
