"""What a word is: shared by the handler of ``docstring_topics`` and the script that trains its network."""

from __future__ import annotations

import re

#: Words of a text at most, known ones or not.
MOST_WORDS = 256
_WORD = re.compile(r"[a-z]+")


def words_in(text: str) -> list[str]:
    """Return the words of a text in small letters; a name such as ``os.read_text`` falls into its parts."""
    return _WORD.findall(text.lower())
