"""``signature.json``: the named inputs and outputs of a model, their shapes, data types and content types.

Two forms are read: the house form (``signature.schema.json`` describes it) and the one of Multi Model Server
(``data_name``, ``data_shape``), whose shapes describe what the model is bound to and not what a request holds.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from marserve.archive.manifest import load_json
from marserve.archive.tensors import DATA_TYPES, TensorSpec
from marserve.errors import ManifestError, SignatureError

__all__ = ["Signature", "TensorSpec", "is_house_form", "load_signature", "validate"]

SIGNATURE_NAME = "signature.json"
JSON_TYPE = "application/json"
#: A tensor of this name stands for the whole request or the whole answer.
WHOLE_BODY = "body"

_HINT = "docs/archives.md shows both forms of signature.json."


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        input_type, output_type: content type of a whole request and answer.
        form: ``house`` or ``mms``; requests can be checked against the house form alone.
        raw: the file as it was read.
    """

    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...] = ()
    input_type: str = JSON_TYPE
    output_type: str = JSON_TYPE
    form: str = "house"
    description: str = ""
    raw: object = None

    @staticmethod
    def parse(raw: object) -> Signature:
        """Make a signature of its JSON value, in either form; needs the standard library alone.

        Raises:
            SignatureError: an entry has no name, an unknown data type, a shape that is none, …
        """
        if not isinstance(raw, dict):
            raise SignatureError("signature.json is not a JSON object.", _HINT)
        inputs, outputs = _tensors(raw, "inputs"), _tensors(raw, "outputs")
        is_mms = any(isinstance(entry, dict) and "data_name" in entry for entry in _entries(raw, "inputs"))
        if not is_mms and not inputs:
            raise SignatureError("signature.json names no inputs.", _HINT)
        return Signature(
            inputs=inputs,
            outputs=outputs,
            input_type=_text(raw, "input_type", JSON_TYPE),
            output_type=_text(raw, "output_type", JSON_TYPE),
            form="mms" if is_mms else "house",
            description=_text(raw, "description", ""),
            raw=raw,
        )

    def request_schema(self) -> Dict[str, object]:
        """Return the JSON Schema of a request that is sent as JSON."""
        return self._schema(self.inputs)

    def answer_schema(self) -> Dict[str, object]:
        """Return the JSON Schema of an answer that is sent as JSON."""
        return self._schema(self.outputs)

    def request_content(self) -> Dict[str, Dict[str, object]]:
        """Return schema by content type, for every form that a request may have."""
        return self._content(self.inputs, self.input_type)

    def answer_content(self) -> Dict[str, Dict[str, object]]:
        """Return schema by content type, for every form that an answer may have."""
        return self._content(self.outputs, self.output_type)

    def example_input(self, source: Optional[random.Random] = None) -> object:
        """Return a valid request in JSON form: the object of inputs, or the value of the input ``body``.

        Args:
            source: draws another value each time where the signature gives bounds or no example. Without it
                the answer is always the same, and the signature's examples are used as they are.
        """
        values = {spec.name: _example(spec, source) for spec in self.inputs}
        return values[WHOLE_BODY] if list(values) == [WHOLE_BODY] else values

    def example_request(self, source: Optional[random.Random] = None) -> Tuple[bytes, str]:
        """Return body and content type of a valid request in the form that ``input_type`` names.

        Raises:
            SignatureError: the content type is one that nothing can be made up for; add an ``example``.
        """
        if self.input_type == JSON_TYPE:
            return json.dumps(self.example_input(source)).encode(), JSON_TYPE
        from marserve.archive.samples import encoded_sample

        return encoded_sample(self.input_type, self.inputs[0], source or random.Random(0))

    def _schema(self, tensors: Tuple[TensorSpec, ...]) -> Dict[str, object]:
        members = {spec.name: self._member_schema(spec) for spec in tensors}
        if list(members) == [WHOLE_BODY]:
            return members[WHOLE_BODY]
        schema: Dict[str, object] = {"type": "object", "properties": members, "required": list(members)}
        return schema if members else {}

    def _member_schema(self, spec: TensorSpec) -> Dict[str, object]:
        if self.form == "house":
            return spec.json_schema()
        return {"description": f"Becomes the model's data of shape {list(spec.shape)}; the service says how."}

    def _content(self, tensors: Tuple[TensorSpec, ...], whole_type: str) -> Dict[str, Dict[str, object]]:
        content: Dict[str, Dict[str, object]] = {}
        if whole_type == JSON_TYPE or self.form == "house":
            content[JSON_TYPE] = self._schema(tensors)
        encoded = [whole_type] if whole_type != JSON_TYPE else []
        if len(tensors) == 1 and tensors[0].content_type:
            encoded.append(tensors[0].content_type)
        for content_type in encoded:
            text = {"type": "string"} if content_type.startswith("text/") else {"type": "string", "format": "binary"}
            content[content_type] = dict(text)
        return content


def load_signature(folder: Path, name: str = SIGNATURE_NAME, strict: bool = False) -> Optional[Signature]:
    """Read the signature of an unpacked archive; None when it has none.

    Args:
        strict: refuse also a file that is in neither form. Without it such a file counts as none: the old
            servers never read it, so an old archive may hold anything under that name.

    Raises:
        SignatureError: the file is in house form, or ``strict`` is set, and it cannot be used.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        raw = load_json(path)
    except ManifestError as error:
        if strict:
            raise SignatureError(error.message, _HINT) from error
        return None
    try:
        return Signature.parse(raw)
    except SignatureError:
        if strict or is_house_form(raw):
            raise
        return None


def validate(raw: object) -> None:
    """Check a signature against the JSON Schema, and what the schema cannot say.

    Raises:
        SignatureError: names the place in the file and what is wrong there.
    """
    import jsonschema

    schema = json.loads(Path(__file__).with_name("signature.schema.json").read_text(encoding="utf-8"))
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(raw))
    if error is not None:
        place = error.json_path.replace("$", SIGNATURE_NAME, 1)
        raise SignatureError(f"{place}: {error.message}.", _HINT)
    signature = Signature.parse(raw)
    for spec in signature.inputs + signature.outputs:
        if spec.example is None:
            continue
        validator = jsonschema.Draft202012Validator(spec.json_schema())
        problem = jsonschema.exceptions.best_match(validator.iter_errors(spec.example))
        if problem is not None:
            raise SignatureError(f"The example of {spec.name!r} does not fit: {problem.message}.", _HINT)


def _example(spec: TensorSpec, source: Optional[random.Random]) -> object:
    has_bounds = spec.minimum is not None or spec.maximum is not None
    if spec.example is not None and (source is None or not has_bounds):
        return spec.example
    return spec.sample(source or random.Random(0))


def is_house_form(raw: object) -> bool:
    """Tell whether a file means to be in house form; one that does must be right, whoever packs or serves it."""
    if not isinstance(raw, dict):
        return False
    entries = _entries(raw, "inputs") + _entries(raw, "outputs")
    return any(isinstance(entry, dict) and "name" in entry and "data_name" not in entry for entry in entries)


def _entries(raw: Mapping[str, object], key: str) -> List[object]:
    entries = raw.get(key)
    return entries if isinstance(entries, list) else []


def _tensors(raw: Mapping[str, object], key: str) -> Tuple[TensorSpec, ...]:
    if not isinstance(raw.get(key, []), list):
        raise SignatureError(f"{key} in signature.json is not a list.", _HINT)
    tensors = tuple(_tensor(entry, f"{key}[{index}]") for index, entry in enumerate(_entries(raw, key)))
    names = [spec.name for spec in tensors]
    for name in names:
        if names.count(name) > 1:
            raise SignatureError(f"{key} in signature.json has two entries named {name!r}.", _HINT)
    if WHOLE_BODY in names and len(names) > 1:
        raise SignatureError(f"{key} in signature.json: {WHOLE_BODY!r} stands for all and must be alone.", _HINT)
    return tensors


def _tensor(entry: object, place: str) -> TensorSpec:
    if not isinstance(entry, dict):
        raise SignatureError(f"{place} in signature.json is not an object.", _HINT)
    is_mms = "data_name" in entry
    name = entry.get("data_name" if is_mms else "name")
    if not isinstance(name, str) or not name:
        raise SignatureError(f"{place} in signature.json has no name.", _HINT)
    shape = entry.get("data_shape", entry.get("shape")) if is_mms else entry.get("shape")
    if is_mms:
        return TensorSpec(name, _shape(shape, place))
    data_type = entry.get("data_type")
    if data_type not in DATA_TYPES:
        known = ", ".join(DATA_TYPES)
        raise SignatureError(f"{place} in signature.json: data_type {data_type!r} is not one of {known}.", _HINT)
    spec = TensorSpec(
        name=name,
        shape=_shape(shape, place),
        data_type=str(data_type),
        content_type=_text(entry, "content_type", "") or None,
        minimum=_number(entry, "minimum", place),
        maximum=_number(entry, "maximum", place),
        example=entry.get("example"),
        description=_text(entry, "description", ""),
    )
    _check_bounds(spec, place)
    return spec


def _check_bounds(spec: TensorSpec, place: str) -> None:
    """Refuse bounds that no value of the data type could keep."""
    json_type, least, most = DATA_TYPES[spec.data_type]
    for bound in (spec.minimum, spec.maximum):
        if bound is None:
            continue
        is_outside = (least is not None and bound < least) or (most is not None and bound > most)
        if json_type not in ("integer", "number") or is_outside or (json_type == "integer" and bound != int(bound)):
            raise SignatureError(f"{place} in signature.json: {bound} is no {spec.data_type}.", _HINT)
    if spec.minimum is not None and spec.maximum is not None and spec.minimum > spec.maximum:
        raise SignatureError(f"{place} in signature.json: minimum is over maximum.", _HINT)


def _shape(value: object, place: str) -> Tuple[int, ...]:
    if not isinstance(value, list) or not all(type(length) is int and length >= 0 for length in value):
        raise SignatureError(f"{place} in signature.json: shape {value!r} is no list of whole numbers.", _HINT)
    return tuple(value)


def _number(entry: Mapping[str, object], key: str, place: str) -> Optional[float]:
    value = entry.get(key)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    raise SignatureError(f"{place} in signature.json: {key} {value!r} is no number.", _HINT)


def _text(entry: Mapping[str, object], key: str, default: str) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise SignatureError(f"{key} in signature.json is not a text: {value!r}.", _HINT)
    return value
