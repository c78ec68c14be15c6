"""``TextClassifier``: the class of a text."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import torch

from ..handler_utils.text_utils import ngrams_iterator
from ..utils.util import map_class_to_label
from .text_handler import TextHandler


class TextClassifier(TextHandler):
    """Answers ``{label: probability}`` for a text; the model takes numbers of tokens, and offsets.

    One request a batch: what a model of this kind takes is one row of numbers.
    """

    ngrams = 2

    def preprocess(self, data: List[Dict[str, Any]]) -> Tuple[torch.Tensor, List[str]]:
        """Return the numbers of the tokens of the first request and their pairs, and the tokens.

        Raises:
            ValueError: the batch has several requests.
        """
        if len(data) > 1:
            raise ValueError(
                f"text_classifier takes one request a batch, got {len(data)}: register it with batch_size 1."
            )
        text: Any = data[0].get("data") or data[0].get("body")
        if isinstance(text, (bytes, bytearray)):
            text = text.decode("utf-8")
        text = self._expand_contractions(self._remove_html_tags(text).lower())
        tokens = self._tokenize(self._remove_punctuation(self._remove_accented_characters(text)))
        numbers = [self._number(token) for token in ngrams_iterator(tokens, self.ngrams)]
        return torch.tensor(numbers, dtype=torch.long, device=self.device), tokens

    def _number(self, token: str) -> int:
        """Return a token's number; a plain dict gives those that it does not know the one of ``<unk>``, else 0."""
        vocabulary = self.source_vocab
        if isinstance(vocabulary, dict) and token not in vocabulary:
            return int(vocabulary.get("<unk>", 0))
        return int(vocabulary[token])

    def inference(self, data: Tuple[torch.Tensor, List[str]], *args: Any, **kwargs: Any) -> Any:
        """Return the scores ``(1, classes)``."""
        return super().inference(data[0], torch.tensor([0], device=self.device))

    def postprocess(self, data: Any) -> List[Dict[str, float]]:
        """Return the probability of each class."""
        return map_class_to_label(torch.softmax(data, dim=1).tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, raw_data: Any, target: int = 0) -> List[Dict[str, Any]]:
        """Return ``importances``, of the outputs of the layer ``embedding``, and ``words``.

        Raises:
            RuntimeError: the model has no such layer.
        """
        if self.lig is None:
            raise RuntimeError("The model has no layer embedding, by which a text is explained.")
        numbers, tokens = text_preprocess
        found = self.lig.attribute(
            numbers,
            torch.zeros_like(numbers),
            target=target,
            additional_forward_args=torch.tensor([0], device=self.device),
        )
        return [{"importances": self.summarize_attributions(found).tolist(), "words": self.get_word_token(tokens)}]
