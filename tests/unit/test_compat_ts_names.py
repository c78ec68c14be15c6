"""What the names of ``ts`` stand for; that each is there is held by ``contract/rows/test_python_apis.py``."""

from types import SimpleNamespace

import pytest
from ts_modules import module

from marserve.errors import PredictionException
from marserve.service.context import Context, RequestProcessor


def test_they_are_the_classes_that_workers_use():
    assert module("context").Context is Context
    assert module("context").RequestProcessor is RequestProcessor
    assert module("utils.util").PredictionException is PredictionException
    assert module("service").PredictionException is PredictionException


def test_the_release_whose_names_these_are():
    assert module("").__version__ == "0.12.0"


@pytest.mark.parametrize("name", ["protocol.otf_message_handler", "handler_utils.utils"])
def test_a_piece_of_each_answer_is_sent_through_the_context(name, monkeypatch):
    sent = []
    context = SimpleNamespace(
        send_intermediate=lambda values, status: sent.append((values, status)), request_ids={0: "a", 1: "b"}
    )
    send = module(name).send_intermediate_predict_response

    send(["x", "y"], {0: "a", 1: "b"}, "Intermediate Prediction success", 200, context)
    monkeypatch.setenv("LOCAL_RANK", "1")
    send(["z"], {0: "a"}, "Intermediate Prediction success", 200, context)

    assert sent == [({0: "x", 1: "y"}, 200)]


def test_a_piece_goes_to_the_request_of_its_id_alone():
    sent = []
    context = SimpleNamespace(send_intermediate=lambda values, _: sent.append(values), request_ids={0: "a", 1: "b"})
    send = module("handler_utils.utils").send_intermediate_predict_response

    send(["x", "y"], {1: "b"}, "", 200, context)
    send(["z"], {0: "b"}, "", 200, context)  # engines that run each request by itself name it so

    assert sent == [{1: "y"}, {1: "z"}]
    with pytest.raises(ValueError, match="No request of the batch has the id 'c'"):
        send(["x"], {0: "c"}, "", 200, context)


def test_import_class():
    import_class = module("handler_utils.utils").import_class

    assert import_class("ts.context.Context") is Context
    assert import_class("context.Context", "ts") is Context
    for name in ("", "Context", "ts.context.Nothing"):
        with pytest.raises(ImportError):
            import_class(name)


def test_a_deprecated_function_warns_and_works():
    @module("utils.util").deprecated("1.0", "other")
    def old(value):
        return value + 1

    with pytest.warns(PendingDeprecationWarning, match="old is deprecated since 1.0; use other"):
        assert old(1) == 2


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('{"0": "cat", "1": "dog"}', {"0": "cat", "1": "dog"}),
        ('{"0": ["n01", "cat"]}', {"0": "cat"}),
        ('{"object_type_names": ["cat", "dog"]}', {"0": "cat", "1": "dog"}),
    ],
)
def test_the_three_forms_of_labels(tmp_path, text, labels):
    (tmp_path / "index_to_name.json").write_text(text)

    assert module("utils.util").load_label_mapping(str(tmp_path / "index_to_name.json")) == labels


@pytest.mark.parametrize(("text", "said"), [("[1]", "must be a JSON object"), ('{"0": 1}', "label of 0")])
def test_labels_that_are_none_are_refused(tmp_path, text, said):
    (tmp_path / "labels.json").write_text(text)

    with pytest.raises(ValueError, match=said):
        module("utils.util").load_label_mapping(str(tmp_path / "labels.json"))


def test_labels_without_a_file_are_told(tmp_path, caplog):
    assert module("utils.util").load_label_mapping(str(tmp_path / "no.json")) is None
    assert "classes are called by their numbers" in caplog.text


def test_classes_become_labels():
    label = module("utils.util").map_class_to_label

    assert label([[0.9, 0.1]], {"0": "cat", "1": "dog"}) == [{"cat": 0.9, "dog": 0.1}]
    assert label([[0.9, 0.1]], {"7": "cat"}, [[7, 3]]) == [{"cat": 0.9, "3": 0.1}]
    assert label([[0.9]]) == [{"0": 0.9}]
    with pytest.raises(TypeError, match="as a list"):
        label(((0.9,),))
