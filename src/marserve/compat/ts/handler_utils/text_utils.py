"""Text as tokens and groups of tokens."""

from __future__ import annotations

from typing import Callable, Iterator, List, Optional, Sequence, Union

Tokenizer = Callable[[str], List[str]]

#: What becomes of punctuation: parted from its words, or dropped.
_PARTED = str.maketrans({**{mark: f" {mark} " for mark in "'.,()!?"}, '"': "", **dict.fromkeys(";:", " ")})


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """Yield the tokens as they are, then all runs of 2 neighbours, and so on up to ``ngrams``, joined by blanks."""
    yield from token_list
    for length in range(2, ngrams + 1):
        for begin in range(len(token_list) - length + 1):
            yield " ".join(token_list[begin : begin + length])


def get_tokenizer(tokenizer: Union[str, Tokenizer, None], language: str = "en") -> Tokenizer:
    """Return a function from text to tokens.

    Args:
        tokenizer: ``basic_english``; None parts at blanks; a function is returned as it is.
        language: of ``basic_english``.

    Raises:
        ValueError: there is no such tokenizer.
    """
    found: Optional[Tokenizer] = str.split if tokenizer is None else None
    if tokenizer == "basic_english" and language == "en":
        found = _basic_english
    elif callable(tokenizer):
        found = tokenizer
    if found is None:
        raise ValueError(f"There is no tokenizer {tokenizer!r} for {language!r}; use 'basic_english' for 'en'.")
    return found


def _basic_english(line: str) -> List[str]:
    """Return the lower-case tokens of a line; quotes are dropped, other marks are tokens or gaps."""
    return line.lower().replace("<br />", " ").translate(_PARTED).split()
