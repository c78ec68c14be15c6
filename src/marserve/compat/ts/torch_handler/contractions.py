"""English contractions and what they stand for, put together from their endings."""

from __future__ import annotations

from typing import Dict

#: Ending, what it stands for, the words that take it.
_ENDINGS = (
    ("'d", " would", "he i it she that there they we you y'all"),
    ("'d", " did", "how where"),
    ("'ll", " will", "he how i it she they we what who you"),
    ("'m", " am", "i"),
    ("'re", " are", "they we what you y'all"),
    ("'s", " is", "he how it she that there what when where who why"),
    ("'s", " as", "so"),
    (
        "'ve",
        " have",
        "could i might must should so they to we what when where who why will would you y'all",
    ),
    (
        "n't",
        " not",
        "are could did does do had has have is may might must need ought should was were would",
    ),
)
_IRREGULAR = {
    "ain't": "is not",
    "can't": "cannot",
    "can't've": "cannot have",
    "'cause": "because",
    "how'd'y": "how do you",
    "let's": "let us",
    "ma'am": "madam",
    "o'clock": "of the clock",
    "shan't": "shall not",
    "sha'n't": "shall not",
    "shan't've": "shall not have",
    "won't": "will not",
    "won't've": "will not have",
    "y'all": "you all",
}
#: Contractions in -'ve whose words take another ending first.
_WITH_HAVE = (
    "he'd i'd it'd she'd that'd there'd they'd we'd you'd y'all'd "
    "he'll i'll it'll she'll they'll we'll what'll who'll you'll "
    "couldn't hadn't mightn't mustn't needn't oughtn't shouldn't wouldn't"
)


def _all() -> Dict[str, str]:
    found = dict(_IRREGULAR)
    for ending, meaning, words in _ENDINGS:
        for word in words.split():
            found[word + ending] = _IRREGULAR.get(word, word) + meaning
    for word in _WITH_HAVE.split():
        found[word + "'ve"] = found[word] + " have"
    for word in [each for each in found if each.startswith("i'")]:
        found["I" + word[1:]] = "I" + found[word][1:]
    return found


#: What each contraction stands for.
CONTRACTION_MAP = _all()
