"""Stands in for the server in the launchers' tests: answers what ``marserve status`` asks, and ends as told."""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from marserve.config.settings import Settings
from marserve.errors import ConfigError

Ready = Callable[[list[str]], None]

_stopped = threading.Event()


class _Door(BaseHTTPRequestHandler):
    """Every door at once."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answers = {
            "/ping": {"status": f"Healthy, passing on {_inheritable_descriptors()}"},
            "/models": {"models": [{"modelName": "fizbuz"}]},
            "/models/fizbuz/all": [{"modelName": "fizbuz", "modelVersion": "1.0", "workers": [{"status": "READY"}]}],
        }
        body = json.dumps(answers[path]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _inheritable_descriptors() -> list[int]:
    return [fd for fd in range(3, 64) if _is_open(fd) and os.get_inheritable(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def run(settings: Settings, *, ready: Ready | None) -> int:
    """Serve until SIGTERM; the exit code says which dialect it was told."""
    signal.signal(signal.SIGTERM, lambda *_: _stopped.set())
    return _serve(settings, ready)


def stubborn(settings: Settings, *, ready: Ready | None) -> int:
    """Serve until the second SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, lambda *_: _stopped.set()))
    return _serve(settings, ready)


def fail(settings: Settings, *, ready: Ready | None) -> int:
    """Refuse to start."""
    raise ConfigError("Port 8080 is taken.", "Free it, or set inference_address to another.")


def crash(settings: Settings, *, ready: Ready | None) -> int:
    """End without a word to the command that waits."""
    logging.getLogger("marserve.stub").error("about to crash")
    os._exit(5)


def never_ready(settings: Settings, *, ready: Ready | None) -> int:
    """Start for ever, and say so through the pipe called ``starting``."""
    signal.signal(signal.SIGTERM, lambda *_: _stopped.set())
    with open("starting", "w") as pipe:
        pipe.write("now")
    _stopped.wait()
    return 0


def _serve(settings: Settings, ready: Ready | None) -> int:
    logging.getLogger("marserve.stub").info("the stub serves %s", settings.dialect)
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Door) for _ in settings.listeners()]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    if ready is not None:
        ready([f"http://127.0.0.1:{server.server_port}" for server in servers])
    _stopped.wait()
    return 0
