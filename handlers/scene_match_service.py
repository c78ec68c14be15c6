"""The handler of ``scene_match``: tells whether a sentence describes a picture, sent by address or as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scene_match_words import MOST_WORDS, WORDS, numbers_of, points_of, unknown_in, words_in

from marserve.archive.tensors import TensorSpec
from marserve.service.addresses import fetch
from marserve.service.inputs import Input
from marserve.service.torch import TorchService
from marserve.service.vision import VisionService

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ANSWERS = ("no_match", "match")


class Picture(Input):
    """A picture in any size and format that Pillow reads."""

    expected = "a picture, such as PNG or JPEG"


#: By which name a request brings its picture: by address in JSON or a form, or as a file of a form.
ADDRESS, FILE = (Picture(TensorSpec(name, (), "bytes"), is_batch_first=False) for name in ("img_uri", "image"))


class SceneMatchService(VisionService, TorchService):
    """Gives both answers with their scores, ``{"match": 0.999, "no_match": 0.001}``, the higher one first.

    A request is ``{"text": …, "img_uri": …}``, or a form with ``text`` and the file ``image``. The address is a
    ``data:`` URI, or one that the operator has allowed.
    """

    def read(self, row: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the picture as points and the sentence as numbers of words.

        Raises:
            InvalidData: one of them is missing or cannot be read; a word is not known; the address is not allowed.
        """
        words = self.words_of(row)
        return points_of(self.picture_of(row)), numbers_of(words)

    def words_of(self, row: dict[str, Any]) -> list[str]:
        """Return the words of the sentence."""
        wanted = self.inputs.all[0]
        text = self.value(row, wanted.name)
        if isinstance(text, (bytes, bytearray)):  # a form's field
            try:
                text = text.decode()
            except UnicodeDecodeError as error:
                wanted.refuse(f"bytes of which number {error.start} is no UTF-8")
        if not isinstance(text, str):
            wanted.refuse(f"a value of type {type(text).__name__}")
        words = words_in(text)
        unknown = unknown_in(words[:100])
        if unknown:
            wanted.refuse(f"words that are not known: {', '.join(unknown)[:200]}. Known are: {', '.join(WORDS)}")
        if not 0 < len(words) <= MOST_WORDS:
            wanted.refuse(f"{len(words)} words; 1 to {MOST_WORDS} can be read")
        return words

    def picture_of(self, row: dict[str, Any]) -> Any:
        """Return the picture, as Pillow has it."""
        if FILE.name in row:
            return self.open_image(FILE, row[FILE.name])
        address = self.value(row, ADDRESS.name)
        if isinstance(address, bytearray):
            address = address.decode("utf-8", "replace")
        return self.open_image(ADDRESS, fetch(address, self.context.allowed_input_urls))

    def postprocess(self, data: Any) -> list[dict[str, float]]:
        """Return the scores of both answers for each request."""
        scores, order = data.softmax(1).sort(descending=True)
        pairs = zip(order.tolist(), scores.tolist(), strict=True)
        return [{ANSWERS[place]: score for place, score in zip(*pair, strict=True)} for pair in pairs]
