"""The handler of ``docstring_topics``: names the topic of an English text, by a scripted recurrent network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from docstring_words import MOST_WORDS, words_in

from marserve.service.torch import TorchService

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marserve.service.context import Context
    from marserve.service.inputs import Input


class DocstringTopicsService(TorchService):
    """Names the topic of a text: ``{"topic": "files", "scores": {"files": 0.93, …}}``, the highest score first.

    The text comes as ``{"text": "…"}``, as a body of ``text/plain``, or as the field ``text`` of a form.
    """

    def initialize(self, context: Context) -> None:
        """Load the network, the words that it knows and the names of its topics."""
        super().initialize(context)
        vocabulary = Path(context.system_properties["model_dir"], "docstring_vocabulary.json")
        known = json.loads(vocabulary.read_text(encoding="utf-8"))
        self.topics: list[str] = known["topics"]
        # 0 stands behind the end of a text.
        self.numbers = {word: number for number, word in enumerate(known["words"], 1)}

    def read(self, row: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of a text's words, ``int64 (256,)``, 0 behind the last one, and how many these are.

        So texts of every length travel in one batch; the network reads as far as the longest goes.

        Raises:
            InvalidData: there is no text, no known word in it, or too many words.
        """
        wanted = self.inputs.all[0]
        value = self.inputs.value(row, wanted)
        if isinstance(value, bytearray) and "body" in row:
            wanted.refuse("a body of another content type, or of none")  # JSON, maybe: not to be read as a text
        text = text_in(wanted, value)
        words = words_in(text)
        if len(words) > MOST_WORDS:
            wanted.refuse(f"{len(words)} words; {MOST_WORDS} are the most")
        known = [self.numbers[word] for word in words if word in self.numbers]
        if not known:
            wanted.refuse("text in which no word is known" if text.strip() else "empty text")
        numbers = np.zeros(MOST_WORDS, dtype=np.int64)
        numbers[: len(known)] = known
        return numbers, np.array(len(known))

    def postprocess(self, data: Any) -> list[dict[str, Any]]:
        """Return the topic of each text, and the share of every topic."""
        shares, order = data.softmax(1).sort(descending=True)
        answers = []
        for row, places in zip(shares.tolist(), order.tolist(), strict=True):
            scores = {self.topics[place]: share for place, share in zip(places, row, strict=True)}
            answers.append({"topic": next(iter(scores)), "scores": scores})
        return answers


def text_in(wanted: Input, value: Any) -> str:
    """Return a text that came as JSON, as a body of text, or as the bytes of a form's field.

    Raises:
        InvalidData: it is something else, or no UTF-8.
    """
    wanted.check(value)
    data = wanted.raw(value)
    if data is None:
        return value[0] if isinstance(value, list) else value  # a batch of one, which the check lets pass
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        wanted.refuse(f"bytes of which number {error.start} is no UTF-8")
