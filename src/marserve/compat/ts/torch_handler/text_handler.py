"""``TextHandler``: cleaning text and the vocabulary that turns it into numbers."""

from __future__ import annotations

import abc
import os
import re
import string
import unicodedata
from typing import Any, List, Sequence

import torch

from ..handler_utils.text_utils import get_tokenizer
from ..utils.util import CLEANUP_REGEX
from .attribution import LayerIntegratedGradients
from .base_handler import BaseHandler
from .contractions import CONTRACTION_MAP

#: The longest first, so that "can't've" is not taken for "can't" and a rest.
_CONTRACTIONS = re.compile("|".join(sorted(map(re.escape, CONTRACTION_MAP), key=len, reverse=True)), re.IGNORECASE)


class TextHandler(BaseHandler, abc.ABC):
    """A handler of text.

    Attributes:
        source_vocab: the number of each token.
        tokenizer: from text to tokens.
        lig: explains by the model's layer ``embedding``; None for a model that has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None
        self.tokenizer = get_tokenizer("basic_english")
        self.input_text: Any = None
        self.lig: Any = None

    def initialize(self, context: Any) -> None:
        """Load the model and ``source_vocab.pt``, or the file that the manifest names as ``sourceVocab``."""
        super().initialize(context)
        named = self.manifest["model"].get("sourceVocab")
        folder = context.system_properties.get("model_dir")
        path = os.path.join(folder, named) if named else self.get_source_vocab_path(context)
        self.source_vocab = torch.load(path)
        layer = getattr(self.model, "embedding", None)
        self.lig = None if layer is None else LayerIntegratedGradients(self.model, layer)

    def get_source_vocab_path(self, ctx: Any) -> str:
        """Return the path of ``source_vocab.pt``.

        Raises:
            FileNotFoundError: the archive has no such file.
        """
        path: str = os.path.join(ctx.system_properties.get("model_dir"), "source_vocab.pt")
        if not os.path.isfile(path):
            raise FileNotFoundError("Missing the source_vocab file: pack source_vocab.pt into the archive.")
        return path

    def _expand_contractions(self, text: str) -> str:
        """Write contractions out and drop the apostrophes that are left; first letters keep their case."""

        def expanded(match: re.Match[str]) -> str:
            short = match.group(0)
            return short[0] + (CONTRACTION_MAP.get(short) or CONTRACTION_MAP[short.lower()])[1:]

        return _CONTRACTIONS.sub(expanded, text).replace("'", "")

    def _remove_accented_characters(self, text: str) -> str:
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")

    def _remove_html_tags(self, text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(str.maketrans("", "", string.punctuation))

    #: Archives call it by this name too.
    _remove_puncutation = _remove_punctuation

    def _tokenize(self, text: str) -> List[str]:
        return self.tokenizer(text)

    def get_word_token(self, input_tokens: Sequence[str]) -> List[str]:
        """Return tokens without the mark that byte pair encoding puts before a word."""
        return [token.replace("\u0120", "") for token in input_tokens]

    def summarize_attributions(self, attributions: torch.Tensor) -> torch.Tensor:
        """Return attributions as shares of their sums' length."""
        dimension = 0 if attributions.dim() in (0, 1, 3) else 1
        shares = torch.softmax(attributions, dim=dimension)
        found: torch.Tensor = shares / torch.linalg.vector_norm(shares.sum(dim=-1))
        return found
