"""The service: what an author writes. Five steps, each of which may be overridden, and a check of each request."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

from marserve.errors import InvalidData, PredictionException
from marserve.service.context import Context
from marserve.service.inputs import WHOLE_BODY, Inputs

__all__ = ["InvalidData", "PredictionException", "Row", "Service"]

#: One request of a batch: ``{"body": value}``, or one entry a form's field.
Row = Dict[str, Any]


class Service:
    """Turns a batch of requests into as many answers.

    ``initialize`` runs once, then ``handle`` once a batch. Its result is a list with one element a request, in
    their order: a dict or list (sent as JSON), text, bytes, or an ``InvalidData`` or ``PredictionException``
    that is the answer to that request alone.

    Attributes:
        inputs: the inputs of ``signature.json``, None without one. Set before ``initialize``.
        output_names: names of the signature's outputs. Set before ``initialize``.
        context: the worker's context, once ``initialize`` has run.
    """

    inputs: Optional[Inputs] = None
    output_names: List[str] = []
    context: Optional[Context] = None

    def initialize(self, context: Context) -> None:
        """Load what the service needs; an exception here means that the model cannot be served."""
        self.context = context

    def check(self, item: Row) -> None:
        """Refuse one request before its batch runs, at no cost to the others; the signature decides.

        Raises:
            InvalidData: the client gets 400 and the message.
            PredictionException: the client gets its code and message.
        """
        if self.inputs is not None and self.inputs.can_refuse:
            self.inputs.check(item)

    def preprocess(self, data: Any) -> Any:
        """Turn the batch's rows into what ``inference`` takes."""
        return data

    def inference(self, data: Any) -> Any:
        """Run the model."""
        return data

    def postprocess(self, data: Any) -> Any:
        """Turn the model's output into a list with one answer a request."""
        return data

    def handle(self, data: List[Row], context: Context) -> List[Any]:
        """Run the three steps on a batch."""
        result: List[Any] = self.postprocess(self.inference(self.preprocess(data)))
        return result

    @staticmethod
    def value(row: Row, name: str = "") -> Any:
        """Return the input ``name`` of a row, from a JSON body or a form's field; without a name the whole body.

        A body that is JSON but did not say so is read all the same; a form's field comes as its bytes.

        Raises:
            InvalidData: the row has no such input.
        """
        body = row.get("body")
        if body is None:
            body = row.get("data")
        if name in ("", WHOLE_BODY):
            return body
        if isinstance(body, (bytes, bytearray)) and name not in row:
            try:
                body = json.loads(bytes(body))
            except (ValueError, RecursionError):
                raise InvalidData(
                    f"input {name!r} is missing: expected a JSON object, got {len(body)} bytes that are no JSON."
                ) from None
        held = body if isinstance(body, dict) else row
        if name not in held:
            names = ", ".join(repr(key) for key in held) or "nothing"
            raise InvalidData(f"input {name!r} is missing, the request has {names}.")
        return held[name]
