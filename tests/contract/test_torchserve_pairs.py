"""Every pair of ``torchserve/*.json``: what TorchServe 0.12.0 answers is what its dialect answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

import pairs

STORIES = [
    pytest.param(path, story, id=f"{path.stem}: {story['row']} {story['about']}")
    for path in pairs.files()
    for story in json.loads(path.read_text())["stories"]
]


@pytest.fixture(scope="session")
def server_of() -> Iterator[Callable[[dict[str, str]], pairs.Server]]:
    """Return the server with some settings; at most one runs, and the files of equal settings share it."""
    running: list[tuple[dict[str, str], pairs.Server]] = []

    def find(settings: dict[str, str]) -> pairs.Server:
        if running and running[0][0] != settings:
            running.pop()[1].stop()
        if not running:
            running.append((settings, pairs.Server(settings)))
        return running[0][1]

    yield find
    for _, server in running:
        server.stop()


@pytest.mark.parametrize(("path", "story"), STORIES)
def test_a_story_is_answered_as_by_the_original(
    server_of: Callable[[dict[str, str]], pairs.Server], path: pairs.Path, story: pairs.Exchange
) -> None:
    server = server_of(json.loads(path.read_text())["settings"])
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
