"""Sentences as numbers, in the lengths that a bucketing module was made for."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Dict, List, Optional, Sequence, Tuple


def encode_sentences(
    sentences: Sequence[Sequence[str]],
    vocab: Optional[Dict[str, int]] = None,
    invalid_label: int = -1,
    invalid_key: str = "\n",
    start_label: int = 0,
) -> Tuple[List[List[int]], Dict[str, int]]:
    """Return sentences as numbers, and the vocabulary.

    Args:
        vocab: numbers by word; a word that it lacks is ``invalid_label``. None makes a new one of all words.
        start_label: first number of a new one.
    """
    is_open = vocab is None
    known = {invalid_key: invalid_label} if vocab is None else vocab
    following = start_label
    found = []
    for sentence in sentences:
        for word in sentence if is_open else ():
            if word not in known:
                following += following == invalid_label
                known[word] = following
                following += 1
        found.append([known.get(word, invalid_label) for word in sentence])
    return found, known


def pad_sentence(
    sentence: Sequence[int],
    buckets: Sequence[int],
    invalid_label: int = -1,
    data_name: str = "data",
    layout: str = "NT",
) -> Any:
    """Return a ``DataBatch`` of one sentence, filled up to the next length of ``buckets``.

    Args:
        layout: ``NT`` for (batch, length), ``TN`` for (length, batch).
    """
    import mxnet

    length = buckets[bisect_left(buckets, len(sentence))]
    padded = [float(number) for number in sentence] + [float(invalid_label)] * (length - len(sentence))
    shape = (1, length) if layout == "NT" else (length, 1)
    return mxnet.io.DataBatch(
        [mxnet.nd.array([padded], dtype="float32")],
        pad=0,
        bucket_key=length,
        provide_data=[mxnet.io.DataDesc(name=data_name, shape=shape, layout=layout)],
    )
