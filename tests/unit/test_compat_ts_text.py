"""The built-in handler of text: cleaning, tokens, pairs of them, the vocabulary, classes and explanations."""

import pytest
import torch
from torch import nn
from ts_modules import asked, context_of, module

text_utils = module("handler_utils.text_utils")
TextClassifier = module("torch_handler.text_classifier").TextClassifier

VOCABULARY = {"<unk>": 0, "good": 1, "bad": 2, "good film": 3}


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(4, 2, mode="sum")
        with torch.no_grad():
            self.embedding.weight.copy_(torch.tensor([[0.0, 0], [2, 0], [0, 2], [1, 0]]))

    def forward(self, text, offsets):
        return self.embedding(text, offsets)


@pytest.fixture
def served(tmp_path, monkeypatch):
    torch.save(VOCABULARY, tmp_path / "source_vocab.pt")
    (tmp_path / "index_to_name.json").write_text('{"0": "praise", "1": "blame"}')
    monkeypatch.setattr(TextClassifier, "_load_weights", lambda self, path: Bag())
    handler = TextClassifier()
    context = context_of(tmp_path, serializedFile="model.pt")
    handler.initialize(context)
    return handler, context


@pytest.mark.parametrize("body", ["A <b>GOOD</b> film!", b"A <b>GOOD</b> film!", bytearray(b"a good film")])
def test_a_text_is_classified(served, body):
    handler, context = served

    (answer,) = handler.handle([{"body": body}], context)

    expected = torch.tensor([3.0, 0.0]).softmax(0).tolist()
    assert answer == {"praise": pytest.approx(expected[0]), "blame": pytest.approx(expected[1])}


def test_tokens_come_before_their_pairs(served):
    numbers, tokens = served[0].preprocess([{"data": "good film"}])

    assert tokens == ["good", "film"]
    assert numbers.tolist() == [1, 0, 3]


def test_an_explanation_has_importances_and_words(served):
    handler, context = served
    asked(context, b"explain", b"True")

    (answer,) = handler.handle([{"body": "good film"}], context)

    assert answer["words"] == ["good", "film"]
    # The layer gives [3, 0], of which [3, 0] speaks for the class 0; as shares that are parts of a sum of 1.
    assert answer["importances"] == [pytest.approx(torch.tensor([3.0, 0.0]).softmax(0).tolist(), rel=1e-4)]


def test_several_requests_at_once_are_refused(served):
    with pytest.raises(ValueError, match="got 2: register it with batch_size 1"):
        served[0].preprocess([{"body": "a"}, {"body": "b"}])


def test_a_missing_vocabulary_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(TextClassifier, "_load_weights", lambda self, path: Bag())

    with pytest.raises(FileNotFoundError, match="Missing the source_vocab file"):
        TextClassifier().initialize(context_of(tmp_path, serializedFile="model.pt"))


def test_a_vocabulary_that_the_manifest_names(tmp_path, monkeypatch):
    torch.save({"x": 2}, tmp_path / "words.pt")
    monkeypatch.setattr(TextClassifier, "_load_weights", lambda self, path: nn.Identity())
    handler = TextClassifier()

    handler.initialize(context_of(tmp_path, serializedFile="model.pt", sourceVocab="words.pt"))

    assert handler.source_vocab == {"x": 2}
    with pytest.raises(RuntimeError, match="no layer embedding"):
        handler.get_insights((torch.tensor([2]), ["x"]), None)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("I'd go, don't you?", "I would go, do not you?"),
        ("they can't've won", "they cannot have won"),
        ("Y'all're the cat's", "You all are the cats"),
    ],
)
def test_contractions_are_written_out(served, text, cleaned):
    assert served[0]._expand_contractions(text) == cleaned


def test_accents_tags_and_marks_are_removed(served):
    handler = served[0]

    assert handler._remove_accented_characters("café") == "cafe"
    assert handler._remove_html_tags("<p>a&nbsp;b</p>") == "ab"
    assert handler._remove_punctuation("a, b!") == handler._remove_puncutation("a, b!") == "a b"
    assert handler.get_word_token(["\u0120good"]) == ["good"]


def test_tokens_of_basic_english():
    tokenizer = text_utils.get_tokenizer("basic_english")

    assert " ".join(tokenizer('You\'re "here".<br />Now: go (on)!')) == "you ' re here . now go ( on ) !"
    assert text_utils.get_tokenizer(None)("A b") == ["A", "b"]
    assert text_utils.get_tokenizer(str.split) is str.split
    with pytest.raises(ValueError, match="no tokenizer 'spacy'"):
        text_utils.get_tokenizer("spacy")


def test_ngrams():
    assert list(text_utils.ngrams_iterator(["a", "b", "c"], 3)) == ["a", "b", "c", "a b", "b c", "a b c"]
    assert list(text_utils.ngrams_iterator([1, 2], 1)) == list(text_utils.ngrams_iterator([1, 2], 0)) == [1, 2]
