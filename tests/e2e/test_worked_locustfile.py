"""The load test itself: what it sends, how it judges, and that it tells failures by their reason."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Impostor(ThreadingHTTPServer):
    """A server that answers every request with what ``answer(path, body)`` returns: status and value."""

    daemon_threads = True

    def __init__(self, answer):
        self.bodies = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body leave in one piece

            def reply(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.bodies.append(body)
                status, value = answer(self.path, body)
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_OPTIONS = reply

            def log_message(self, format, *args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.thread.join()
        self.server_close()


def locust(server, *options, seconds=1):
    """Run the load test; return its exit code and all that it printed."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfile.py"), "--headless", "--only-summary"]
    command += ["--users", "2", "--spawn-rate", "2", "--run-time", f"{seconds}s", "--loglevel", "WARNING"]
    command += ["--host", f"http://127.0.0.1:{server.server_port}", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    return ended.returncode, ended.stdout + ended.stderr


def play(body):
    number = json.loads(body)["input.1"] + 1
    return {"next_number": "Fiz" * (number % 3 == 0) + "Buz" * (number % 5 == 0) or str(number)}


def test_right_answers_are_no_failures_and_inputs_keep_to_the_signature():
    with Impostor(lambda path, body: (200, play(body))) as server:
        code, printed = locust(server)
    assert code == 0, printed
    assert "/predictions/fizbuz_package" in printed
    numbers = [json.loads(body)["input.1"] for body in server.bodies]
    assert all(type(number) is int and 0 <= number <= 1022 for number in numbers)
    assert len(set(numbers)) > 10


def test_failures_are_told_by_reason():
    def answer(path, body):
        number = json.loads(body)["input.1"]
        if number % 3 == 0:
            return 503, {"code": 503, "type": "QueueFull", "message": f"the queue is full for {number}"}
        return 200, play(body) if number % 3 == 1 else {"next_number": "Foo"}

    with Impostor(answer) as server:
        code, printed = locust(server)
    assert code == 1
    assert "503 QueueFull" in printed
    assert "wrong answer: not the word for the next number" in printed
    # One row a reason, however many requests it hit.
    assert printed.count("QueueFull") == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"3": 0.9, "5": 0.1}, "not five of the labels"),
        ({"3": 0.1, "5": 0.9, "1": 0, "2": 0, "4": 0}, "not probabilities, the highest first"),
        ([1], "not five of the labels"),
    ],
)
def test_digits_get_pictures_and_have_to_give_five_probabilities(value, reason):
    with Impostor(lambda path, body: (200, value)) as server:
        code, printed = locust(server, "--model", "digits")
    assert code == 1
    assert reason in printed
    picture = json.loads(server.bodies[0])
    assert [len(row) for row in picture] == [8] * 8
    assert all(0 <= number <= 16 for row in picture for number in row)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"topic": "files", "scores": {"files": 0.4, "text": 0.6}}, "not shares of 1, the highest first"),
        ({"topic": "text", "scores": {"files": 0.6, "text": 0.4}}, "not the topic with the highest share"),
        ({"topic": "text"}, "no scores"),
    ],
)
def test_topics_get_texts_of_all_lengths_and_have_to_give_falling_shares(value, reason):
    with Impostor(lambda path, body: (200, value)) as server:
        code, printed = locust(server, "--model", "docstring_topics")
    assert code == 1
    assert reason in printed
    assert len({json.loads(body)["text"].count(" ") for body in server.bodies}) > 5


def test_a_model_without_a_signature_file_is_asked_for_its_description():
    numbers = {"type": "array", "items": {"type": "number", "minimum": 1, "maximum": 2}, "minItems": 3, "maxItems": 3}
    request = {"type": "object", "properties": {"x": numbers}, "required": ["x"]}
    answer_schema = {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}
    operation = {
        "requestBody": {"content": {"application/json": {"schema": request}}},
        "responses": {"200": {"content": {"application/json": {"schema": answer_schema}}}},
    }
    description = {"openapi": "3.0.1", "paths": {"/predictions/adder": {"post": operation}}}
    sums = []

    def answer(path, body):
        if not body:
            return 200, description
        sums.append(sum(json.loads(body)["x"]))
        return 200, {"sum": sums[-1]} if len(sums) > 1 else {"total": 1}

    with Impostor(answer) as server:
        code, printed = locust(server, "--model", "adder")
    assert code == 1
    assert "'required' of the signature" in printed
    assert all(3 <= total <= 6 for total in sums)
    assert len(sums) > 1


def test_a_model_that_nobody_describes_ends_the_test_at_once():
    with Impostor(lambda path, body: (404, {"type": "ModelNotFound"})) as server:
        code, printed = locust(server, "--model", "unknown", seconds=50)
    assert code == 1
    assert "Nobody knows what unknown takes" in printed
    assert "Traceback" not in printed


def test_a_server_that_is_not_there_is_a_failure_with_its_reason():
    with Impostor(lambda path, body: (200, {})) as server:
        pass
    code, printed = locust(server)
    assert code == 1
    assert "no answer: ConnectionRefusedError" in printed
