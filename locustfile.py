"""The load test: predictions by any archive that has a signature, each answer checked, failures told by reason.

With the web page: ``locust``, then http://127.0.0.1:8089.
Without: ``locust --headless --users 8 --run-time 10s --model digits``.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import logging
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import jsonschema
from gevent import GreenletExit
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FastHttpSession, FastResponse
from locust.env import Environment

from marserve.archive.signature import Signature

SIGNATURES = Path(__file__).with_name("signature")
JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Load:
    """What to send to one model, and how to judge what comes back.

    Attributes:
        draw: makes body and content type of a valid request.
        judge: raises when an answer, parsed if it is JSON, is not the right one for a body.
    """

    draw: Callable[[random.Random], tuple[bytes, str]]
    judge: Callable[[bytes, Any], None]


@events.init_command_line_parser.add_listener
def add_arguments(parser: LocustArgumentParser) -> None:
    """Add ``--model``; the web page asks for it as well."""
    parser.add_argument(
        "--model",
        default="fizbuz_package",
        env_var="LOCUST_MODEL",
        help="The model to send predictions to (default fizbuz_package). Its signature is signature/MODEL.json or, "
        "where that file is missing, what the server describes.",
    )


class Client(FastHttpUser):
    """Sends one prediction after the other, without a pause."""

    host = "http://127.0.0.1:8080"

    def on_start(self) -> None:
        """Find out what the chosen model takes."""
        model = self.environment.parsed_options.model
        self.path = f"/predictions/{quote(model, safe='')}"
        self.source = random.Random()
        try:
            self.load = find_load(self.client, model)
        except LookupError as error:
            give_up(self.environment, str(error))
            raise GreenletExit() from error  # ends this user without a trace in the log

    @task
    def predict(self) -> None:
        """Ask for one prediction and judge the answer."""
        body, content_type = self.load.draw(self.source)
        headers = {"Content-Type": content_type}
        with self.client.post(self.path, data=body, headers=headers, catch_response=True) as response:
            reason = failure(response, body, self.load)
            if reason:
                response.failure(reason)


def give_up(environment: Environment, reason: str) -> None:
    """End the test, because without requests it would only wait for its time to pass."""
    if environment.process_exit_code is not None:
        return  # another user has said so
    logging.error(reason)
    environment.process_exit_code = 1
    runner = environment.runner
    # From a greenlet of its own: stopping ends the user that asks for it.
    gevent.spawn(runner.quit if environment.parsed_options.headless else runner.stop)


def failure(response: FastResponse, body: bytes, load: Load) -> str:
    """Say in a few words why an answer is a failure, "" when it is right.

    The words hold nothing of the single request: Locust's table has one row for each text.
    """
    if response.status_code == 0:
        return f"no answer: {type(response.error).__name__}"
    try:
        answer = json.loads(response.content) if is_json(response) else response.content
    except ValueError:
        return f"{response.status_code}: the answer is not the JSON that it says it is"
    if response.status_code != 200:
        return f"{response.status_code} {error_type(answer)}".rstrip()
    try:
        load.judge(body, answer)
    except WrongAnswerError as error:
        return f"wrong answer: {error}"
    return ""


def is_json(response: FastResponse) -> bool:
    """Tell whether an answer says that it is JSON; the old servers' dialects do not say anything."""
    return (response.headers or {}).get("content-type", JSON_TYPE).startswith(JSON_TYPE)


def error_type(answer: Any) -> str:
    """Return the type that an error's body names, "" when it names none."""
    return str(answer.get("type", "")) if isinstance(answer, dict) else ""


class WrongAnswerError(Exception):
    """The server answered 200 with what is not the answer."""


def find_load(client: FastHttpSession, model: str) -> Load:
    """Return the load for a model: by its signature file, else by the server's description.

    Raises:
        LookupError: neither is there, so nobody knows what the model takes.
    """
    path = SIGNATURES / f"{model}.json"
    if path.is_file():
        signature = Signature.parse(json.loads(path.read_text(encoding="utf-8")))
        draw = DRAWN.get(model, signature.example_request)
        return Load(draw, KNOWN.get(model) or by_schema(signature.answer_schema()))
    return described(client, model)


def described(client: FastHttpSession, model: str) -> Load:
    """Return the load that the server's OpenAPI description of a model asks for.

    Raises:
        LookupError: the server does not describe the model, or the model takes no JSON.
    """
    name = f"OPTIONS /predictions/{model}"
    with client.request(
        "OPTIONS", f"/predictions/{quote(model, safe='')}", name=name, catch_response=True
    ) as response:
        try:
            operation = json.loads(response.content)["paths"][f"/predictions/{model}"]["post"]
            request = operation["requestBody"]["content"][JSON_TYPE]["schema"]
            answer = operation["responses"]["200"]["content"].get(JSON_TYPE, {}).get("schema", {})
        except (ValueError, KeyError, TypeError) as error:
            response.failure("no description of a JSON request")
            raise LookupError(
                f"Nobody knows what {model} takes: there is no {SIGNATURES / model}.json, and the server does not "
                "describe a JSON request. Write the signature, or check --model and --host."
            ) from error
    return Load(lambda source: (json.dumps(sample(request, source)).encode(), JSON_TYPE), by_schema(answer))


def sample(schema: dict[str, Any], source: random.Random) -> Any:
    """Return a value that a JSON Schema of a signature allows: a number in its bounds, an example, or one made up."""
    if "examples" in schema and "minimum" not in schema:
        return source.choice(schema["examples"])
    kind = schema.get("type")
    if kind == "object":
        return {name: sample(member, source) for name, member in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema["items"], source) for _ in range(schema.get("minItems", 1))]
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        high = schema.get("maximum", low + 100)
        return source.randint(low, high) if kind == "integer" else source.uniform(low, high)
    return {"boolean": True, "string": "text"}.get(str(kind))


def by_schema(schema: dict[str, Any]) -> Callable[[bytes, Any], None]:
    """Return a judge that holds every answer against a JSON Schema."""
    validator = jsonschema.Draft202012Validator(schema)

    def judge(body: bytes, answer: Any) -> None:
        error = next(validator.iter_errors(answer), None)
        if error is not None:
            raise WrongAnswerError(f"{error.json_path} breaks {error.validator!r} of the signature")

    return judge


def judge_fizbuz(body: bytes, answer: Any) -> None:
    """Play the game along: ``{"input.1": 14}`` has to give ``{"next_number": "FizBuz"}``."""
    number = json.loads(body)["input.1"] + 1
    word = "Fiz" * (number % 3 == 0) + "Buz" * (number % 5 == 0) or str(number)
    if answer != {"next_number": word}:
        raise WrongAnswerError("not the word for the next number")


def judge_digits(body: bytes, answer: Any) -> None:
    """Five labels with falling probabilities; which ones is the model's business."""
    if not isinstance(answer, dict) or len(answer) != 5 or not answer.keys() <= set("0123456789"):
        raise WrongAnswerError("not five of the labels 0 to 9")
    probabilities = list(answer.values())
    if probabilities != sorted(probabilities, reverse=True) or not 0 <= sum(probabilities) <= 1.0001:
        raise WrongAnswerError("not probabilities, the highest first")


def draw_text(source: random.Random) -> tuple[bytes, str]:
    """Return a text of 1 to 60 words, so that short and long ones meet in a batch."""
    words = ("open", "the", "file", "and", "return", "a", "socket", "of", "all", "threads")
    return json.dumps({"text": " ".join(source.choices(words, k=source.randint(1, 60)))}).encode(), JSON_TYPE


def judge_topics(body: bytes, answer: Any) -> None:
    """Shares of 1 that fall from the topic named on; which one that is, is the model's business."""
    if not isinstance(answer, dict) or not isinstance(answer.get("scores"), dict) or not answer["scores"]:
        raise WrongAnswerError("no scores")
    shares = list(answer["scores"].values())
    if shares != sorted(shares, reverse=True) or abs(sum(shares) - 1) > 1e-4:
        raise WrongAnswerError("not shares of 1, the highest first")
    if answer.get("topic") != next(iter(answer["scores"])):
        raise WrongAnswerError("not the topic with the highest share")


@functools.cache
def shapes_pictures() -> tuple[bytes, ...]:
    """Return scenes of coloured shapes as PNG, in several sizes; drawn once, as each takes longer than its answer."""
    sys.path.append(str(Path(__file__).with_name("archives")))
    from shapes_scenes import UNSEEN, draw_scene

    pictures = []
    for seed in range(UNSEEN, UNSEEN + 12):
        file = io.BytesIO()
        draw_scene(seed, ((128, 128), (200, 150), (96, 160))[seed % 3]).image.save(file, "PNG")
        pictures.append(file.getvalue())
    return tuple(pictures)


def draw_shapes(source: random.Random) -> tuple[bytes, str]:
    """Return one of the scenes."""
    return source.choice(shapes_pictures()), "image/png"


def judge_segments(body: bytes, answer: Any) -> None:
    """A map of the picture's size, of classes that have a name; which ones is the model's business."""
    width, height = struct.unpack(">II", body[16:24])  # of a PNG
    if not isinstance(answer, dict) or [len(row) for row in answer.get("map", ())] != [width] * height:
        raise WrongAnswerError("not a map of the picture's size")
    if not set().union(*answer["map"]) <= set(range(len(answer.get("classes", ())))):
        raise WrongAnswerError("a class without a name")


def judge_boxes(body: bytes, answer: Any) -> None:
    """Boxes within the picture, the highest score first; which ones is the model's business."""
    width, height = struct.unpack(">II", body[16:24])  # of a PNG
    boxes = answer.get("boxes") if isinstance(answer, dict) else None
    if not isinstance(boxes, list):
        raise WrongAnswerError("no boxes")
    scores = [each["score"] for each in boxes]
    if scores != sorted(scores, reverse=True) or not all(0 <= score <= 1 for score in scores):
        raise WrongAnswerError("not scores, the highest first")
    for left, top, right, bottom in (each["box"] for each in boxes):
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise WrongAnswerError("a box that leaves the picture")


def draw_match(source: random.Random) -> tuple[bytes, str]:
    """Return a sentence about one of the scenes, which it may describe or not."""
    colour, shape = source.choice(("red", "green", "blue")), source.choice(("circle", "square", "triangle"))
    text = f"a {colour} {shape} {source.choice(('and', 'left of', 'above'))} a star"
    picture = base64.b64encode(source.choice(shapes_pictures())).decode()
    return json.dumps({"text": text, "img_uri": f"data:image/png;base64,{picture}"}).encode(), JSON_TYPE


def judge_match(body: bytes, answer: Any) -> None:
    """Both answers with shares of 1, the higher first; which one that is, is the model's business."""
    if not isinstance(answer, dict) or answer.keys() != {"match", "no_match"}:
        raise WrongAnswerError("not the two answers")
    first, second = answer.values()
    if not first >= second >= 0 or abs(first + second - 1) > 1e-4:
        raise WrongAnswerError("not shares of 1, the higher first")


#: What draws the requests of models for which the signature's one example would say too little.
DRAWN: dict[str, Callable[[random.Random], tuple[bytes, str]]] = {
    "docstring_topics": draw_text,
    "scene_match": draw_match,
    "shapes_detector": draw_shapes,
    "shapes_segmenter": draw_shapes,
}
#: Judges of models whose right answers are known; every other answer is held against the signature.
KNOWN: dict[str, Callable[[bytes, Any], None]] = {
    "fizbuz_package": judge_fizbuz,
    "fizbuz_torch": judge_fizbuz,
    "fizbuz_script": judge_fizbuz,
    "fizbuz_mxnet": judge_fizbuz,
    "digits": judge_digits,
    "docstring_topics": judge_topics,
    "scene_match": judge_match,
    "shapes_detector": judge_boxes,
    "shapes_segmenter": judge_segments,
}
