"""Says what it got, or does what a JSON body asks for with its member ``do``."""

import importlib
import os

HEADERS = ("explain", "url_path", "describe", "X-Some", "x-request-id")


def show(value):
    """Return a value with the name of its type, as JSON can say it."""
    if isinstance(value, (bytes, bytearray)):
        return {type(value).__name__: bytes(value).decode("latin-1")}
    return {type(value).__name__: value}


def prediction_exception(message, *code):
    """Return the exception that chooses its own status, of whichever server this runs in."""
    for module in ("mms.service", "ts.utils.util"):
        try:
            return importlib.import_module(module).PredictionException(message, *code)
        except ImportError:
            pass
    raise RuntimeError("There is no such exception here.")


def fail(asked):
    """Raise what the request asks for."""
    do = asked["do"]
    if do == "die":
        os._exit(1)
    if do == "choose":
        raise prediction_exception(*asked["with"])
    raise {"raise": ValueError, "memory": MemoryError, "cuda": RuntimeError}[do](asked.get("text", "as asked"))


RESULTS = {"not a list": {"a": 1}, "wrong count": [1, 2, 3], "unsendable": [{"a": object()}]}


def answer(asked, index, context):
    """Return one answer that a request chose."""
    if "value" in asked:
        return asked["value"]
    if "bytes" in asked:
        return bytes(asked["bytes"])
    context.set_response_content_type(index, "text/x-own")
    context.set_response_header(index, "X-Own", "yes")
    context.set_response_status(201, "Own phrase", index)
    return "made"


def handle(data, context):
    """Answer a batch."""
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        asked = row.get("body") if isinstance(row, dict) else None
        if isinstance(asked, dict) and asked.get("do") in RESULTS:
            return RESULTS[asked["do"]]
        if isinstance(asked, dict) and asked.get("do") == "answer":
            answers.append(answer(asked, index, context))
            continue
        if isinstance(asked, dict) and "do" in asked:
            fail(asked)
        shown = {name: show(row[name]) for name in sorted(row)} if isinstance(row, dict) else show(row)
        found = {name: context.get_request_header(index, name) for name in HEADERS}
        # TorchServe leaves out of some requests what says nothing in others.
        said = {name: value for name, value in found.items() if value not in (None, "", "False")}
        answers.append({"row": shown, "headers": said})
    return answers
