"""One named input or output of a model: its JSON form, and values that fit it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

#: Data type: JSON type of an element, smallest and largest value (None: no bound).
DATA_TYPES: Dict[str, Tuple[str, Optional[int], Optional[int]]] = {
    "bool": ("boolean", None, None),
    **{f"uint{bits}": ("integer", 0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"int{bits}": ("integer", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("float16", "bfloat16", "float32", "float64"), ("number", None, None)),
    "string": ("string", None, None),
    "bytes": ("object", None, None),
    "scores": ("object", None, None),
    "json": ("", None, None),
}


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    Attributes:
        shape: of one request's value, 0 = free, () = a single value. In the MMS form: of the model's data,
            batch first.
        data_type: a key of DATA_TYPES.
        content_type: in which the value may also be sent as it is, encoded; None when it may not.
        minimum, maximum: bounds of a number, themselves allowed.
        example: a valid value in JSON form, None when the signature gives none.
    """

    name: str
    shape: Tuple[int, ...] = ()
    data_type: str = "float32"
    content_type: Optional[str] = None
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    example: object = None
    description: str = ""

    def json_schema(self) -> Dict[str, object]:
        """Return the JSON Schema of the value in JSON form: nested arrays, the last axis innermost."""
        schema = self._element_schema()
        for length in reversed(self.shape):
            schema = {"type": "array", "items": schema}
            if length:
                schema.update(minItems=length, maxItems=length)
        if self.description:
            schema["description"] = self.description
        if self.example is not None:
            schema["examples"] = [self.example]
        return schema

    def _element_schema(self) -> Dict[str, object]:
        if self.data_type == "scores":
            return {"type": "object", "additionalProperties": {"type": "number"}}
        if self.data_type == "bytes":
            encoded = {"type": "string", "contentEncoding": "base64"}
            return {"type": "object", "required": ["b64"], "properties": {"b64": encoded}}
        json_type, _, _ = DATA_TYPES[self.data_type]
        schema: Dict[str, object] = {"type": json_type} if json_type else {}
        low, high = self.bounds()
        if low is not None:
            schema["minimum"] = low
        if high is not None:
            schema["maximum"] = high
        return schema

    def bounds(self) -> Tuple[Optional[float], Optional[float]]:
        """Return the smallest and largest value: the signature's, else the data type's, else None."""
        _, low, high = DATA_TYPES[self.data_type]
        return (low if self.minimum is None else self.minimum, high if self.maximum is None else self.maximum)

    def sample(self, source: random.Random) -> object:
        """Return a value in JSON form that the spec allows; free axes are one long."""
        return self._sample(self.shape, source)

    def _sample(self, shape: Tuple[int, ...], source: random.Random) -> object:
        if shape:
            return [self._sample(shape[1:], source) for _ in range(shape[0] or 1)]
        json_type, _, _ = DATA_TYPES[self.data_type]
        if json_type in ("integer", "number"):
            return self._sample_number(json_type == "integer", source)
        others = {"bool": source.random() < 0.5, "string": "text", "bytes": {"b64": ""}}
        return others.get(self.data_type, {})

    def _sample_number(self, is_integer: bool, source: random.Random) -> float:
        low, high = self.bounds()
        # Where only one side or a whole data type is open, stay near zero: models seldom like 2**63.
        if self.minimum is None:
            low = 0 if high is None or high >= 0 else high - 1
        assert low is not None
        if self.maximum is None:
            high = min(high, low + 100) if high is not None else low + 1
        assert high is not None
        if is_integer:
            return source.randint(int(low), int(high))
        return min(max(round(source.uniform(low, high), 6), low), high)
