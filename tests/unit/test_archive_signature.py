"""signature.json: both forms, the schema and the parser in step, examples that fit."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from marserve.archive.signature import Signature, load_signature, validate
from marserve.archive.tensors import DATA_TYPES
from marserve.errors import SignatureError

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "src/marserve/archive/signature.schema.json"

FIZBUZ = {
    "inputs": [{"name": "input.1", "shape": [], "data_type": "int64", "minimum": 0, "maximum": 1022, "example": 14}],
    "outputs": [{"name": "next_number", "shape": [], "data_type": "string"}],
}
MMS = {
    "inputs": [{"data_name": "input.1", "data_shape": [1, 10]}],
    "input_type": "application/json",
    "outputs": [{"data_name": "softmax", "data_shape": [1, 4]}],
    "output_type": "application/json",
}
IMAGE = {
    "inputs": [{"name": "image", "shape": [0, 0], "data_type": "uint8", "content_type": "image/*"}],
    "outputs": [{"name": "body", "shape": [], "data_type": "scores"}],
}


def with_input(**members: object) -> dict[str, object]:
    entry = {"name": "x", "shape": [2, 0], "data_type": "float32", **members}
    return {**FIZBUZ, "inputs": [{key: value for key, value in entry.items() if value is not None}]}


def test_schema_is_the_same_in_the_repository_and_in_the_package() -> None:
    assert (ROOT / "signature/signature.schema.json").read_bytes() == SCHEMA.read_bytes()


def test_schema_is_a_valid_schema_that_knows_the_data_types_of_the_parser() -> None:
    schema = json.loads(SCHEMA.read_text())

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["tensor"]["properties"]["data_type"]["enum"] == list(DATA_TYPES)


@pytest.mark.parametrize(
    "path",
    sorted(set(ROOT.glob("signature/*.json")) - {ROOT / "signature/signature.schema.json"}),
    ids=lambda path: path.name,
)
def test_signatures_of_the_worked_archives_are_valid(path: Path) -> None:
    validate(json.loads(path.read_text()))


def test_house_form_is_read() -> None:
    signature = Signature.parse(FIZBUZ)

    (spec,) = signature.inputs
    assert (signature.form, spec.name, spec.shape, spec.data_type) == ("house", "input.1", (), "int64")
    assert (spec.minimum, spec.maximum, spec.example) == (0, 1022, 14)
    assert signature.outputs[0].name == "next_number"


@pytest.mark.parametrize("key", ["data_shape", "shape"])
def test_mms_form_is_read(key: str) -> None:
    signature = Signature.parse(
        {"inputs": [{"data_name": "data", key: [0, 3, 224, 224]}], "input_type": "image/jpeg"}
    )

    assert (signature.form, signature.inputs[0].shape, signature.input_type) == (
        "mms",
        (0, 3, 224, 224),
        "image/jpeg",
    )
    assert "image/jpeg" in signature.request_content()


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ([], "signature.json"),
        ({}, "inputs"),
        ({"inputs": {}}, ""),
        ({**FIZBUZ, "inputs": []}, "inputs"),
        ({**FIZBUZ, "inputs": [1]}, "inputs[0]"),
        ({"inputs": [{"data_name": "x"}]}, "inputs[0]"),
        ({"inputs": [{"data_name": "", "data_shape": [1]}]}, "inputs[0]"),
        (with_input(name=None), "inputs[0]"),
        (with_input(shape=None), "inputs[0]"),
        (with_input(shape=[-1]), "inputs[0]"),
        (with_input(shape=[1.5]), "inputs[0]"),
        (with_input(shape="8"), "inputs[0]"),
        (with_input(data_type="float"), "inputs[0]"),
        (with_input(minimum="0"), "inputs[0]"),
        (with_input(content_type=1), ""),
    ],
)
def test_schema_and_parser_refuse_the_same(raw: object, place: str) -> None:
    with pytest.raises(SignatureError) as found:
        validate(raw)
    assert place in str(found.value)
    with pytest.raises(SignatureError):
        Signature.parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {**FIZBUZ, "inputs": FIZBUZ["inputs"] * 2},
        {**FIZBUZ, "inputs": [{"name": name, "shape": [], "data_type": "json"} for name in ("body", "other")]},
        with_input(minimum=2, maximum=1),
        with_input(data_type="uint8", maximum=256),
        with_input(data_type="uint8", minimum=0.5),
        with_input(data_type="string", minimum=0),
    ],
    ids=["same name twice", "body beside others", "minimum over maximum", "out of range", "no integer", "no number"],
)
def test_parser_refuses_what_no_schema_can_say(raw: object) -> None:
    with pytest.raises(SignatureError):
        Signature.parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {**FIZBUZ, "unknown": 1},
        with_input(dtype="float32"),
        {"inputs": FIZBUZ["inputs"]},
        with_input(example=[[1], [2], [3]]),
        with_input(content_type="png"),
    ],
    ids=["unknown member", "unknown member of an input", "no outputs", "example does not fit", "no content type"],
)
def test_packing_is_stricter_than_reading(raw: object) -> None:
    with pytest.raises(SignatureError):
        validate(raw)


def test_mms_form_may_have_members_of_its_own() -> None:
    validate({**MMS, "custom": 1})


def test_request_schema_accepts_what_fits_and_nothing_else() -> None:
    validator = jsonschema.Draft202012Validator(Signature.parse(FIZBUZ).request_schema())

    assert validator.is_valid({"input.1": 14})
    for wrong in ({}, {"input.1": "14"}, {"input.1": 1023}, {"input.1": 1.5}, 14):
        assert not validator.is_valid(wrong)


def test_shapes_become_nested_arrays_with_free_axes() -> None:
    validator = jsonschema.Draft202012Validator(Signature.parse(with_input()).request_schema())

    assert validator.is_valid({"x": [[1], [2, 3]]})
    assert not validator.is_valid({"x": [[1]]})
    assert not validator.is_valid({"x": [1, 2]})


def test_tensor_named_body_is_the_whole_answer() -> None:
    signature = Signature.parse(IMAGE)

    assert jsonschema.Draft202012Validator(signature.answer_schema()).is_valid({"3": 0.99, "8": 0.01})
    assert list(signature.answer_content()) == ["application/json"]


def test_encoded_input_may_come_as_json_or_as_it_is() -> None:
    assert list(Signature.parse(IMAGE).request_content()) == ["application/json", "image/*"]


def test_example_is_the_one_that_is_given_unless_others_are_wanted() -> None:
    signature = Signature.parse(FIZBUZ)
    source = random.Random(1)

    drawn = [signature.example_input(source) for _ in range(50)]

    assert signature.example_input() == {"input.1": 14}
    assert len({json.dumps(value) for value in drawn}) > 10
    validator = jsonschema.Draft202012Validator(signature.request_schema())
    assert all(validator.is_valid(value) for value in drawn)


SHAPES = st.lists(st.integers(0, 3), max_size=3)
BOUNDS = st.one_of(st.none(), st.integers(-200, 200))


@given(st.sampled_from(sorted(DATA_TYPES)), SHAPES, BOUNDS, BOUNDS, st.integers())
def test_made_up_inputs_fit_their_signature(
    data_type: str, shape: list[int], low: int | None, high: int | None, seed: int
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    try:
        signature = Signature.parse(with_input(data_type=data_type, shape=shape, minimum=low, maximum=high))
    except SignatureError:
        reject()

    example = signature.example_input(random.Random(seed))

    jsonschema.validate(example, signature.request_schema())


def test_request_of_an_image_signature_is_an_image() -> None:
    from PIL import Image

    for content_type, kind in (("image/png", "PNG"), ("image/*", "PNG"), ("image/jpeg", "JPEG")):
        signature = Signature.parse({**IMAGE, "input_type": content_type})
        body, sent_as = signature.example_request(random.Random(0))
        with Image.open(io.BytesIO(body)) as image:
            image.load()
            assert (image.format, image.size) == (kind, (28, 28))
            assert sent_as == Image.MIME[kind]


def test_request_of_a_type_that_cannot_be_made_up_needs_an_example() -> None:
    entry = {"name": "body", "shape": [], "data_type": "bytes", "content_type": "audio/wav"}
    raw = {**FIZBUZ, "inputs": [entry], "input_type": "audio/wav"}

    with pytest.raises(SignatureError, match="audio/wav"):
        Signature.parse(raw).example_request()

    entry["example"] = {"b64": "UklGRg=="}
    validate(raw)
    assert Signature.parse(raw).example_request() == (b"RIFF", "audio/wav")


def test_archive_without_signature_has_none(tmp_path: Path) -> None:
    assert load_signature(tmp_path) is None


@pytest.mark.parametrize("text", ["no json", '{"labels": []}', "[]"])
def test_foreign_file_of_that_name_counts_as_none_unless_strict(tmp_path: Path, text: str) -> None:
    (tmp_path / "signature.json").write_text(text)

    assert load_signature(tmp_path) is None
    with pytest.raises(SignatureError):
        load_signature(tmp_path, strict=True)


def test_broken_house_form_is_always_refused(tmp_path: Path) -> None:
    (tmp_path / "signature.json").write_text(json.dumps(with_input(data_type="float")))

    with pytest.raises(SignatureError, match="float32"):
        load_signature(tmp_path)
