"""Sentences as numbers."""

from mms.utils.mxnet.nlp import encode_sentences, pad_sentence

__all__ = ["encode_sentences", "pad_sentence"]
