"""``TextIteratorStreamerBatch``: the texts of a batch, piece by piece, while transformers generates them."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from .libraries import library


class TextIteratorStreamerBatch:
    """A streamer for ``model.generate(streamer=…)``, and an iterator over ``[{"text": piece}, …]``, one a sequence.

    Args:
        tokenizer: decodes the tokens.
        batch_size: sequences that are generated together.
        skip_prompt: leave out the prompt's own tokens.
        timeout: longest wait for a piece, seconds; None for ever.
        decode_kwargs: of the tokenizer's ``decode``.

    Raises:
        ModuleNotFoundError: transformers is not there.
    """

    def __init__(
        self,
        tokenizer: Any,
        batch_size: int,
        skip_prompt: bool = False,
        timeout: Optional[float] = None,
        **decode_kwargs: Any,
    ) -> None:
        streamer = library("transformers", "transformers").TextIteratorStreamer
        self.batch_size = batch_size
        self.streamers = [streamer(tokenizer, skip_prompt, timeout, **decode_kwargs) for _ in range(batch_size)]
        self.streamer_iterators = [iter(each) for each in self.streamers]

    def put(self, value: Any) -> None:
        """Take the next tokens, ``(batch, …)``.

        Raises:
            ValueError: they are of another number of sequences.
        """
        if value.shape[0] != self.batch_size:
            raise ValueError(f"Expected tokens of {self.batch_size} sequences, got the shape {tuple(value.shape)}.")
        for index, streamer in enumerate(self.streamers):
            streamer.put(value[index : index + 1])

    def end(self) -> None:
        """Mark the end of all sequences."""
        for streamer in self.streamers:
            streamer.end()

    def __iter__(self) -> TextIteratorStreamerBatch:
        return self

    def __next__(self) -> List[Dict[str, str]]:
        pieces = [next(iterator, None) for iterator in self.streamer_iterators]
        if None in pieces:
            raise StopIteration
        return [{"text": piece} for piece in pieces if piece is not None]
