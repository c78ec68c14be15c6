"""Every pair of ``torchserve/*.json`` and ``mms/*.json``: what an old server answers is what its dialect answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pairs

#: Where an original is asked, its own stories alone are told.
_ASKED = [original for original in pairs.ORIGINALS if original.is_asked] or pairs.ORIGINALS
STORIES = [
    pytest.param(original, path, story, id=f"{original.name} {path.stem}: {story['row']} {story['about']}")
    for original in _ASKED
    for path in pairs.files(original)
    for story in json.loads(path.read_text())["stories"]
]

ServerOf = Callable[[pairs.Original, Path], pairs.Server]


@pytest.fixture(scope="session")
def server_of() -> Iterator[ServerOf]:
    """Return the server of a file; at most one runs, and files that want the same one share it."""
    running: list[tuple[object, pairs.Server]] = []

    def find(original: pairs.Original, path: Path) -> pairs.Server:
        told = json.loads(path.read_text())
        settings, models = told["settings"], told.get("models", ["echo=echo.mar"])
        if running and running[0][0] != (original, settings, models):
            running.pop()[1].stop()
        if not running:
            running.append(((original, settings, models), pairs.Server(settings, original, models)))
        return running[0][1]

    yield find
    for _, server in running:
        server.stop()


@pytest.mark.parametrize(("original", "path", "story"), STORIES)
def test_a_story_is_answered_as_by_the_original(
    server_of: ServerOf, original: pairs.Original, path: Path, story: pairs.Exchange
) -> None:
    server = server_of(original, path)
    found = []
    try:
        for exchange in story["exchanges"]:
            asked = exchange["ask"]
            answer = pairs.play(server, exchange)
            differences = pairs.differences(pairs.wanted(server, exchange), answer)
            found += [f"{asked['method']} {asked['target']}: {difference}" for difference in differences]
    finally:
        server.clean()
    assert not found, "\n".join(found) + "\n" + server.log[-3000:]
