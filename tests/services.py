"""Services that tests serve: each is the text of a handler file."""

#: Answers what it gets; the body steers it: sleep, exit, raise in a step, wrong results, silence.
STEERED = '''
import os, signal, sys, time
from marserve.service.base import Service

class Steered(Service):
    """Does what the request says, in the step that it names."""

    def initialize(self, context):
        self.context = context
        print("the service has loaded", flush=True)

    def act(self, step, data):
        for row in data:
            body = row.get("body")
            if not isinstance(body, dict) or body.get("in", "inference") != step:
                continue
            if "say" in body:
                print(body["say"], flush=True)
            if "sleep" in body:
                time.sleep(body["sleep"])
            if "raise" in body:
                raise ValueError(body["raise"])
            if "memory" in body:
                raise MemoryError()
            if "exit" in body:
                os._exit(body["exit"])
            if "signal" in body:
                os.kill(os.getpid(), body["signal"])
                time.sleep(60)
        return data

    def check(self, item):
        body = item.get("body")
        if isinstance(body, dict) and "refuse" in body:
            from marserve.errors import InvalidData
            raise InvalidData(body["refuse"])

    def preprocess(self, data):
        return self.act("preprocess", data)

    def inference(self, data):
        return self.act("inference", data)

    def postprocess(self, data):
        return self.act("postprocess", data)

    def handle(self, data, context):
        rows = self.postprocess(self.inference(self.preprocess(data)))
        self.act("handle", data)
        answers = []
        for index, row in enumerate(rows):
            body = row.get("body")
            if isinstance(body, dict) and "status" in body:
                context.set_response_status(body["status"], body.get("phrase", ""), index)
            if isinstance(body, dict) and "answer" in body:
                answers.append(body["answer"])
            elif isinstance(body, dict) and "size" in body:
                answers.append(bytes(body["size"]))
            elif isinstance(body, dict) and "unsendable" in body:
                answers.append({1, 2})
            else:
                answers.append({"pid": os.getpid(), "batch": len(rows), "body": _shown(body)})
        if any(isinstance(row.get("body"), dict) and "short" in row["body"] for row in rows):
            answers.pop()
        if any(isinstance(row.get("body"), dict) and "no_list" in row["body"] for row in rows):
            return {"no": "list"}
        return answers


def _shown(body):
    return {"bytes": len(body)} if isinstance(body, (bytes, bytearray)) else body
'''

#: Answers its version and process, so that routing and swaps can be seen.
VERSIONED = """
import os

def handle(data, context):
    if data is None:
        return None
    return [{{"version": "{version}", "pid": os.getpid()}} for _ in data]
"""

#: Does not load.
BROKEN = """
class Broken:
    def initialize(self, context):
        raise RuntimeError("the weights are from another planet")

    def handle(self, data, context):
        return data
"""

#: Ends its own process while it loads.
EXITS_AT_LOAD = """
import os, sys

class Exits:
    def initialize(self, context):
        print("about to leave", flush=True)
        os._exit(9)

    def handle(self, data, context):
        return data
"""

#: Loads slowly; a file tells it to go on.
GATED = """
import os, time

class Gated:
    def initialize(self, context):
        while not os.path.exists(os.environ["GATE_FILE"]):
            time.sleep(0.01)

    def handle(self, data, context):
        return ["open" for _ in data]
"""

#: Starts a process of its own, and ignores being asked to end.
WITH_CHILD = """
import signal, subprocess, sys

class WithChild:
    def initialize(self, context):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def handle(self, data, context):
        return [{"child": self.child.pid} for _ in data]
"""

#: Answers what each request looked like to it.
MIRROR = """
def handle(data, context):
    if data is None:
        return None
    return [
        {
            "row": {name: [type(value).__name__, _plain(value)] for name, value in row.items()},
            "header": context.get_request_header(index, "X-Mixed-Case"),
            "explain": context.get_request_header(index, "explain"),
            "url_path": context.get_request_header(index, "url_path"),
            "id": context.get_request_id(index),
        }
        for index, row in enumerate(data)
    ]


def _plain(value):
    return bytes(value).decode("latin-1") if isinstance(value, (bytes, bytearray)) else value
"""

#: Answers how long its request may still take.
DEADLINE = """
def handle(data, context):
    if data is None:
        return None
    return [{"left": context.deadline_left(index)} for index, _ in enumerate(data)]
"""

#: Answers in as many pieces as it is asked for.
STREAMING = """
import os, time

class Streaming:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        bodies = [row["body"] for row in data]
        for number in range(max(body["pieces"] for body in bodies) - 1):
            context.send_intermediate([f"{body['name']}{number} " for body in bodies])
            if any(body.get("exit_after") == number for body in bodies):
                os._exit(5)
            if any(body.get("raise_after") == number for body in bodies):
                raise ValueError("no more")
            time.sleep(max(body.get("sleep", 0) for body in bodies))
        return [f"{body['name']} ends" for body in bodies]
"""

#: Echoes the token of its request, and does to its own process, its log and its link what the request asks for.
CHAOTIC = """
import os, signal, time


def handle(data, context):
    if data is None:
        return None
    bodies = [row["body"] for row in data]
    for body in bodies:
        note(body)
        act(body, context)
    answers = [answer(body) for body in bodies]
    return answers[1:] if any("short" in body for body in bodies) else answers


def answer(body):
    return {"token": body["token"], "pad": len(body.get("pad", "")), "more": "y" * body.get("size", 0)}


def note(body):
    path = os.environ.get("RAN_FILE")
    if path:
        with open(path, "a") as file:
            file.write(body["token"] + chr(10))


def act(body, context):
    if "once" in body:
        try:
            os.close(os.open(body["once"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    time.sleep(body.get("sleep", 0))
    if "raise" in body:
        raise ValueError(body["token"])
    if "exit" in body:
        os._exit(body["exit"])
    if "kill" in body:
        os.kill(os.getpid(), signal.SIGKILL)
    if "print" in body:
        print("x" * body["print"], end="", flush=True)
    if "flood" in body:
        flood(body["flood"])
    if "daemon" in body:
        if os.fork():
            os._exit(5)
        os.setsid()  # out of reach of whoever ends the worker's group
        try:
            flood(body["daemon"])
        finally:
            os._exit(0)
    if "close" in body:
        for number in body["close"]:
            os.close(number)
    if "cut" in body:
        for number in links():
            os.close(number)
    if "lie" in body:
        for number in links():
            os.write(number, bytes.fromhex(body["lie"]))
        time.sleep(600)
    if "piece" in body:
        context.send_intermediate([body["piece"]], body["status"])


def flood(until):
    while not os.path.exists(until):
        os.write(1, (b"x" * 99 + bytes([10])) * 100)


def links():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                found.append(int(name))
        except OSError:
            pass
    return found
"""
