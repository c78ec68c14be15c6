"""``docstring_topics`` through the real server: texts of all lengths together, and what scripting does for it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import torch

import marserve
from live import ROOT, LiveServer, serving

FOLDER = ROOT / "archives" / "docstring_topics"
#: Eight texts of 2 to 256 words, all of them known to a network however briefly it was trained.
TEXTS = (
    "A file.",
    "Return the address of the remote end of the socket.",
    "Wait until all threads have called the method, then release the lock.",
    "Return the sum of two decimal numbers.",
    "Parse the header of the message and return a list of (name, value) pairs, one a line, as the old parser did.",
    "The name of the day of the week.",
    "Replace all tabs of the string by spaces.",
    "Open the file and return its size. " * 36 + "Close the file again.",
)


def loaded(path: Path) -> ModuleType:
    """Import a file of the archive's folder under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"docstring_topics_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Direct:
    """The network of an archive without its service.

    Attributes:
        scripted, eager: as its TorchScript file, and as the Python class with the same weights.
    """

    def __init__(self, archive: Path, folder: Path) -> None:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        known = json.loads((folder / "docstring_vocabulary.json").read_text(encoding="utf-8"))
        self.topics, self.words = known["topics"], known["words"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
            self.scripted = torch.jit.load(folder / "docstring_topics.pt").eval()
        self.eager = loaded(FOLDER / "network.py").TopicsNetwork(len(self.words), len(self.topics)).eval()
        self.eager.load_state_dict(self.scripted.state_dict())

    def numbered(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a text as a batch of one that is no longer than it."""
        words = [1 + self.words.index(word) for word in re.findall("[a-z]+", text.lower()) if word in self.words]
        return torch.tensor([words]), torch.tensor([len(words)])

    def scores(self, text: str) -> dict[str, float]:
        """Return the share of each topic, as the Python class computes it."""
        with torch.inference_mode():
            shares = self.eager(*self.numbered(text)).softmax(1)[0].tolist()
        return dict(zip(self.topics, shares, strict=True))


@pytest.fixture(scope="module")
def archive(worked: Callable[[str], Path]) -> Path:
    return worked("docstring_topics")


@pytest.fixture(scope="module")
def direct(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Direct:
    return Direct(archive, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[LiveServer]:
    """The archive twice: ``docstring_topics`` answers at once, ``eight`` waits for eight requests."""
    with serving(archive.parent, f"docstring_topics={archive.name}") as running:
        options = {"url": archive.name, "model_name": "eight", "batch_size": 8, "max_batch_delay": 10_000}
        registered = running.manage("POST", "/models", params=options | {"initial_workers": 1, "synchronous": "true"})
        assert registered.status_code == 200, registered.text
        yield running


def together(server: LiveServer, requests: list[dict[str, Any]]) -> list[httpx.Response]:
    """Send eight requests at once, so that they travel as one batch."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda more: server.predict("eight", **more), requests))


def batches(server: LiveServer) -> tuple[float, float]:
    """Return how many batches ``eight`` has had, and how many requests were in them."""
    text = server.client.get(f"{server.metrics}/metrics").text
    found = dict(re.findall(r'marserve_batch_size_(count|sum){model="eight",.*} (\S+)', text))
    return float(found.get("count", 0)), float(found.get("sum", 0))


def assert_right(answer: httpx.Response, direct: Direct, text: str) -> None:
    assert answer.status_code == 200, answer.text
    expected = direct.scores(text)
    scores = answer.json()["scores"]
    # Sums of another length differ in their last bits.
    assert scores == pytest.approx(expected, abs=1e-5)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert answer.json()["topic"] == next(iter(scores))


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_alone_is_answered_as_by_the_network(server: LiveServer, direct: Direct, text: str) -> None:
    assert_right(server.predict("docstring_topics", {"text": text}), direct, text)


def test_eight_texts_of_different_lengths_travel_together(server: LiveServer, direct: Direct) -> None:
    count, total = batches(server)
    for text, answer in zip(TEXTS, together(server, [{"json": {"text": text}} for text in TEXTS]), strict=True):
        assert_right(answer, direct, text)
    assert batches(server) == (count + 1, total + 8)


def of_type(content_type: str, content: bytes) -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": content_type}}


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(of_type("text/plain", TEXTS[1].encode()), id="text/plain"),
        pytest.param({"data": {"text": TEXTS[1]}}, id="field of a form"),
        pytest.param({"files": {"text": ("a.txt", TEXTS[1])}}, id="file of a form"),
        pytest.param({"json": TEXTS[1]}, id="JSON text"),
    ],
)
def test_a_text_may_come_in_other_forms(server: LiveServer, direct: Direct, form: dict[str, Any]) -> None:
    assert_right(server.predict("docstring_topics", **form), direct, TEXTS[1])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param({"json": {"text": " \n"}}, "got empty text", id="empty text"),
        pytest.param(of_type("text/plain", b""), "expected a single string, or text/plain", id="empty body"),
        pytest.param(of_type("application/json", b""), "it is empty", id="empty JSON"),
        pytest.param({"json": {"text": "日本語 qqqq"}}, "text in which no word is known", id="no known word"),
        pytest.param({"json": {"text": "file " * 257}}, "257 words; 256 are the most", id="too long"),
        pytest.param({"json": {"text": 14}}, "expected a single string", id="number"),
        pytest.param({"json": {"text": None}}, "got null", id="null"),
        pytest.param({"json": {"text": ["a file", "the file"]}}, "got shape (2,)", id="list"),
        pytest.param({"json": {"words": "a file"}}, "input 'text' is missing", id="another name"),
        pytest.param(of_type("text/plain", b"the caf\xe9"), "byte 7 is no UTF-8", id="text in latin-1"),
        pytest.param(of_type("application/json", b'{"text": "caf\xe9"}'), "not JSON", id="JSON in latin-1"),
        pytest.param(of_type("application/octet-stream", b'{"text": "a file"}'), "another content type", id="bytes"),
        pytest.param({"content": b"a file"}, "another content type, or of none", id="no content type"),
        pytest.param(
            of_type("application/x-www-form-urlencoded", b"text=the+caf%E9"),
            "number 7 is no UTF-8",
            id="field in latin-1",
        ),
    ],
)
def test_bad_input_is_refused_alone(server: LiveServer, direct: Direct, bad: dict[str, Any], reason: str) -> None:
    count, total = batches(server)
    requests = [{"json": {"text": text}} for text in TEXTS]
    requests[3] = bad
    answers = together(server, requests)
    refused = answers.pop(3)
    assert (refused.status_code, refused.json()["code"]) == (400, 400)
    assert reason in refused.json()["message"]
    for text, answer in zip((*TEXTS[:3], *TEXTS[4:]), answers, strict=True):
        assert_right(answer, direct, text)
    assert batches(server) == (count + 1, total + 8)


def test_the_traced_network_stops_where_its_example_did_and_the_scripted_one_does_not(direct: Direct) -> None:
    example, *longer = sorted((direct.numbered(text) for text in TEXTS[2:]), key=lambda text: text[1].item())
    longer = [text for text in longer if text[1] > example[1]]
    assert len(longer) >= 3
    with warnings.catch_warnings():
        # torch warns of tracing as a whole, and of just what is shown here.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(direct.eager, example, check_trace=False)
    with torch.inference_mode():
        assert torch.allclose(traced(*example), direct.eager(*example), atol=1e-5)
        for text in longer:
            assert torch.allclose(direct.scripted(*text), direct.eager(*text), atol=1e-5)
            assert not torch.allclose(traced(*text), direct.eager(*text), atol=1e-2)


@pytest.fixture
def docstrings(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script that gathers the data; what it imports is gone again afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield loaded(FOLDER / "docstrings.py")
    sys.modules.pop("docstring_words", None)


def test_sentences_are_the_words_of_docstrings_without_their_examples(docstrings: ModuleType) -> None:
    docstring = "Return the base name of os.path.\n\nNo more.\n\n    >>> open(None)\n    an answer of four words\n\n"
    docstring += "Use with care,\non Unix only"
    assert list(docstrings.sentences_in(docstring)) == [
        ("return", "the", "base", "name", "of", "os", "path"),
        ("use", "with", "care", "on", "unix", "only"),
    ]


def test_held_out_sentences_are_new_and_mostly_right_even_after_a_brief_training(
    docstrings: ModuleType, archive: Path
) -> None:
    learned, held_out = docstrings.load_parts()
    topics = list(docstrings.TOPICS)
    assert set(learned.values()) == set(held_out.values()) == set(range(len(topics)))
    assert not learned.keys() & held_out.keys()
    assert 0.1 < len(held_out) / len(learned) < 0.4
    asked = list(held_out)[::4]
    with marserve.load(archive, batch_size=32) as model:
        answers = model.predict_batch([{"text": " ".join(words)} for words in asked])
    topics_named = [answer["topic"] if isinstance(answer, dict) else "refused" for answer in answers]
    is_right = [topics[held_out[words]] == named for words, named in zip(asked, topics_named, strict=True)]
    assert sum(is_right) / len(is_right) > 0.5
