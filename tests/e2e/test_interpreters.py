"""Archives that name their own interpreter and packages: workers on other Pythons, and MXNet in one of its own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from live import LiveServer, make_archive, serving
from marserve.archive.interpreters import known_interpreters
from workshop import Workshop

#: The oldest Python that workers run on, the one before the server's oldest, and the newest.
WANTED = ("3.8", "3.10", "3.12", "3.13")

#: Tells where it runs; its answers go through JSON in both directions.
PLAIN = """
import importlib.util
import sys

def leaks():
    others = ("yaml", "psutil", "numpy", "operators_own")
    return [name for name in others if importlib.util.find_spec(name) is not None]

def handle(data, context):
    if data is None:
        return None
    try:
        import orjson
    except ImportError:
        orjson = None
    about = {"python": list(sys.version_info[:2]), "orjson": orjson is not None, "leaks": leaks()}
    return [{"got": row.get("body", row.get("data")), "about": about} for row in data]
"""
#: What a JSON library could write or read otherwise.
BODY = {
    "text": "Grüße 😀 \u2028",
    "numbers": [1, -0.0, 1e22, 0.1, 2**63, 2**70],
    "nothing": None,
    "yes": True,
    "": {},
}


#: The interpreters of this machine, by version without the last part.
FOUND = {".".join(each.version.split(".")[:2]): each for each in known_interpreters()}
OTHERS = [version for version in WANTED if version in FOUND]


def test_there_is_another_interpreter_than_the_servers(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\ninterpreters:", ", ".join(f"{each.version} ({each.path})" for each in FOUND.values()))
    assert set(OTHERS) - {f"{sys.version_info[0]}.{sys.version_info[1]}"}, "uv finds none of them: install one"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain archive for each interpreter, and each once with orjson in its environment."""
    store = tmp_path_factory.mktemp("interpreters") / "store"
    for version in OTHERS:
        make_archive(store, f"plain-{version}", PLAIN, config={"python": version})
        make_archive(store, f"fast-{version}", PLAIN, config={"python": version, "requirements": ["orjson"]})
    return store


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[LiveServer]:
    """A server whose operator has put a module on its path."""
    place = store.parent / "path"
    place.mkdir()
    (place / "operators_own.py").touch()
    with serving(store, environment={"PYTHONPATH": str(place)}, cache=store.parent / "cache") as server:
        yield server


def register(server: LiveServer, name: str, **more: object) -> httpx.Response:
    options = {"url": name, "initial_workers": 1, "synchronous": "true", **more}
    return server.manage("POST", "/models", params=options)


@pytest.mark.parametrize("version", OTHERS)
def test_a_plain_archive_on_another_interpreter(server: LiveServer, version: str) -> None:
    answers = []
    for name, has_orjson in ((f"plain-{version}", False), (f"fast-{version}", True)):
        registered = register(server, name)
        assert registered.status_code == 200, registered.text
        answer = server.predict(name, BODY)
        expected = {"python": [int(part) for part in version.split(".")], "orjson": has_orjson, "leaks": []}
        assert answer.json() == {"got": BODY, "about": expected}
        answers.append(answer.content.replace(b'"orjson":true', b'"orjson":false'))
        assert server.predict(name, content=b"{", headers={"content-type": "application/json"}).status_code == 400
        # The next registration finds what this one has made.
        server.manage("DELETE", f"/models/{name}")
    assert answers[0] == answers[1]
    made = [line for line in server.lines if f"plain-{version}: making an environment with " in line]
    assert len(made) == 1
    assert FOUND[version].version.rpartition(".")[0] in made[0]


def test_an_environment_is_made_once(server: LiveServer, store: Path) -> None:
    version = OTHERS[0]
    for name in ("first", "second"):
        make_archive(store, name, PLAIN, config={"python": version, "requirements": ["orjson>=3"]})
        assert register(server, name).status_code == 200
    assert "first: Installed 1 package" in server.log
    assert "first: its environment is ready after " in server.log
    assert "second: " not in server.log


def test_the_servers_interpreter_alone_shows_nothing_of_the_server(server: LiveServer, store: Path) -> None:
    make_archive(store, "same", PLAIN, config={"requirements": ["orjson"]})
    assert register(server, "same").status_code == 200
    expected = {"python": list(sys.version_info[:2]), "orjson": True, "leaks": []}
    assert server.predict("same", 1).json()["about"] == expected


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"python": "2.7"}, "There is no Python 2.7. Workers run on: "),
        ({"python": "/nowhere/python"}, "There is no interpreter /nowhere/python. Workers run on: "),
        ({"python": 3.1}, "Write it in quotes"),
        ({"requirements": ["tinydep @ file:///nowhere/tinydep-2.0-py3-none-any.whl"]}, "/nowhere/tinydep-2.0"),
        ({"requirements": "missing.txt"}, "has no file missing.txt"),
    ],
)
def test_what_cannot_be_had_is_told_in_the_answer(
    server: LiveServer, store: Path, config: dict[str, object], why: str
) -> None:
    make_archive(store, "failing", PLAIN, config=config)
    answer = register(server, "failing")
    assert (answer.status_code, answer.json()["type"]) == (400, "EnvironmentFault")
    assert why in answer.text
    assert server.manage("GET", "/models/failing").status_code == 404
    made = [each for each in (store.parent / "cache" / "environments").iterdir() if each.is_dir()]
    assert all((each / ".ready").exists() for each in made)


def test_an_old_servers_users_are_told_too(store: Path) -> None:
    make_archive(store, "failing", PLAIN, config={"python": "2.7"})
    command = ("marserve", "start", "--foreground", "--dialect", "torchserve")
    with serving(
        store, command=command, settings={"disable_token_authorization": "true", "enable_model_api": "true"}
    ) as server:
        answer = register(server, "failing")
        assert (answer.status_code, answer.json()["type"]) == (400, "ModelException")
        assert answer.json()["message"].startswith("There is no Python 2.7. Workers run on: ")


# --- MXNet ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mxnet_folder(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``store`` has the real ``fizbuz_mxnet.mar``, written by MXNet and packed as users do it."""
    folder = tmp_path_factory.mktemp("mxnet")
    (folder / "store").mkdir()
    shutil.copy(workshop.archive("fizbuz_mxnet"), folder / "store")
    shutil.copytree(workshop.folder / "work" / "fizbuz_mxnet", folder / "work" / "fizbuz_mxnet")
    return folder


def word(number: int) -> str:
    return "Fiz" * (number % 3 == 0) + "Buz" * (number % 5 == 0) or str(number)


def test_the_fizbuz_network_in_mxnet_for_the_users_of_multi_model_server(mxnet_folder: Path) -> None:
    command = ("marserve", "start", "--foreground", "--dialect", "mms")
    settings = {"enable_metrics_api": "true"}
    with serving(mxnet_folder / "store", command=command, settings=settings, cache=mxnet_folder / "cache") as server:
        registered = register(server, "fizbuz_mxnet.mar", batch_size=16, max_batch_delay=5)
        assert registered.status_code == 200, registered.text

        def said(number: int) -> str:
            return str(server.predict("fizbuz_mxnet", {"input.1": number}).json()["next_number"])

        with ThreadPoolExecutor(16) as clients:  # so that there are batches
            assert list(clients.map(said, range(1023))) == [word(number + 1) for number in range(1023)]
        refused = server.predict("fizbuz_mxnet", {"input.1": 1023})
        assert refused.status_code == 400


#: The signature of the network itself, in either form.
SIGNATURES = {
    "mms": {"inputs": [{"data_name": "data", "data_shape": [0, 10]}], "outputs": []},
    "house": {
        "inputs": [{"name": "data", "shape": [10], "data_type": "float32"}],
        "outputs": [{"name": "scores", "shape": [4], "data_type": "float32"}],
    },
}


#: A service for Multi Model Server on one of its template classes, of which the archive carries no copy.
TEMPLATE = """
from mxnet_model_service import MXNetModelService

class Scores(MXNetModelService):
    def get_model_files_prefix(self, context):
        return "fizbuz"

_service = Scores()

def handle(data, context):
    if not _service.initialized:
        _service.initialize(context)
    return None if data is None else _service.handle(data, context)
"""


def make_mxnet_archive(folder: Path, name: str, signature: dict[str, object]) -> None:
    """Put an archive into the store that has the worked one's network, and a service file that need not count."""
    config = {"python": ">=3.10,<3.12", "requirements": "requirements.txt"}
    make_archive(folder / "store", name, TEMPLATE, config=config, signature=signature)
    for file in ("fizbuz-symbol.json", "fizbuz-0000.params", "requirements.txt"):
        shutil.copyfile(folder / "work" / "fizbuz_mxnet" / file, folder / "store" / name / file)


def test_the_librarys_service_is_bound_by_either_signature_and_old_ones_run_too(mxnet_folder: Path) -> None:
    with serving(mxnet_folder / "store", cache=mxnet_folder / "cache") as server:
        for form, signature in SIGNATURES.items():
            make_mxnet_archive(mxnet_folder, form, signature)
            registered = register(server, form, handler="mxnet_service", batch_size=8, max_batch_delay=20)
            assert registered.status_code == 200, registered.text
        make_mxnet_archive(mxnet_folder, "template", SIGNATURES["mms"])
        registered = register(server, "template", batch_size=4)
        assert registered.status_code == 200, registered.text

        def scores(form: str, bits: list[float]) -> httpx.Response:
            return server.predict(form, {"data": bits})

        fifteen, three = [1.0, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1.0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
        asked = [(form, bits) for form in SIGNATURES for bits in (fifteen, three, fifteen[:9], fifteen)]
        with ThreadPoolExecutor(len(asked)) as clients:
            answers = list(clients.map(lambda each: scores(*each), asked))
        for first, second, refused, last in (answers[:4], answers[4:]):
            assert refused.status_code == 400
            assert [best(answer.json()) for answer in (first, second, last)] == [3, 1, 3]
        assert best(json.loads(scores("template", fifteen).text)) == 3


def best(scores: list[float]) -> int:
    return scores.index(max(scores))
