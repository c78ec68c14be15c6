"""Serves the worked archives and shows the whole tour: ready, predict, scale, load test, and what to try next."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from marserve.archive.signature import Signature
from marserve.config.loading import load_settings

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "model-store"
CONFIG = ROOT / "config.properties"
#: Longest wait for the server, seconds; the slowest part is the first import of torch.
START_TIMEOUT = 180.0

console = Console(highlight=False, soft_wrap=True)


class TourError(Exception):
    """The tour cannot go on; the message says why."""


def step(text: str) -> None:
    """Print what comes next."""
    console.print(
        f"\n[bold]== {escape(text)}[/bold]" if console.is_terminal else f"\n== {text}", markup=console.is_terminal
    )


def say(text: str) -> None:
    """Print one line as it is."""
    console.print(text, markup=False)


class Running:
    """A server of this tour, and its addresses."""

    def __init__(self, inference: str | None, management: str | None) -> None:
        self.log = Path(tempfile.gettempdir()) / "marserve-tour.log"
        command = [str(Path(sys.executable).with_name("marserve")), "start", "--foreground"]
        command += ["--model-store", str(STORE), "--models", "all", "--config", str(CONFIG)]
        for key, value in (("inference_address", inference), ("management_address", management)):
            if value:
                command += ["--set", f"{key}={value}"]
        say("$ " + shlex.join([Path(command[0]).name, *command[1:]]))
        overrides = {"inference_address": inference, "management_address": management}
        settings = load_settings(CONFIG, {key: value for key, value in overrides.items() if value}).settings
        self.inference = str(settings.inference_address)
        self.management = str(settings.management_address)
        self.metrics = str(settings.metrics_address)
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches this script alone, which then lets the server finish its work.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def wait_until_ready(self) -> str:
        """Return what /ping says once the server is ready."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise TourError(f"The server ended with code {self._process.returncode}:\n{self.last_lines()}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                status, body = call("GET", self.inference + "/ping")
                if status == 200:
                    return body
            time.sleep(0.1)
        raise TourError(f"The server was not ready after {START_TIMEOUT:g} s:\n{self.last_lines()}")

    def last_lines(self) -> str:
        """Return the end of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def wait(self) -> None:
        """Return when the server has ended by itself."""
        code = self._process.wait()
        raise TourError(f"The server ended with code {code}:\n{self.last_lines()}")

    def stop(self) -> int:
        """Let the server finish what it has accepted; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait()


def call(method: str, url: str, body: bytes | None = None, content_type: str = "") -> tuple[int, str]:
    """Send one request; return status and text of its answer, whatever the status."""
    headers = {"content-type": content_type} if content_type else {}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def archive_names() -> list[str]:
    """Return the names of the worked archives."""
    return sorted(path.stem for path in (ROOT / "signature").glob("*.json") if (STORE / f"{path.stem}.mar").exists())


def predict_each(server: Running) -> list[str]:
    """Make one prediction with each archive; return the curl lines that do the same."""
    lines = []
    for name in archive_names():
        signature = Signature.parse(json.loads((ROOT / "signature" / f"{name}.json").read_text()))
        body, content_type = signature.example_request()
        status, answer = call("POST", f"{server.inference}/predictions/{name}", body, content_type)
        shown = body.decode() if content_type == "application/json" else f"{len(body)} bytes of {content_type}"
        say(f"{name}: {shown if len(shown) < 70 else shown[:66] + ' ...'} -> {status} {answer.strip()}")
        if status != 200:
            raise TourError(f"{name} did not answer as it should.")
        if content_type == "application/json" and len(shown) < 70:
            lines.append(
                f"curl {server.inference}/predictions/{name} -H 'content-type: application/json' -d {shlex.quote(shown)}"
            )
    return lines


def scale(server: Running, name: str) -> None:
    """Scale one archive to two workers and back to what its answer tells."""
    for query in ("max_worker=1", "min_worker=2&synchronous=true"):
        url = f"{server.management}/models/{name}?{query}"
        began = time.monotonic()
        status, answer = call("PUT", url)
        say(f"curl -X PUT {shlex.quote(url)}\n  -> {status} {answer.strip()} ({time.monotonic() - began:.2f} s)")
        if status not in (200, 202):
            raise TourError(f"{name} could not be scaled.")


def load_test(server: Running, name: str, users: int, seconds: int) -> None:
    """Run a short Locust test against one archive and print its table."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfile.py"), "--headless", "--only-summary"]
    command += ["--host", server.inference, "--model", name, "--users", str(users), "--spawn-rate", str(users)]
    command += ["--run-time", f"{seconds}s", "--loglevel", "WARNING"]
    say("$ locust " + shlex.join(command[3:]))
    if subprocess.run(command, check=False, cwd=ROOT).returncode:
        raise TourError("The load test saw failures; its table says which.")


def tell_what_to_try(server: Running, lines: list[str]) -> None:
    """Print the addresses and the curl lines."""
    say(f"inference   {server.inference}\nmanagement  {server.management}\nmetrics     {server.metrics}/metrics")
    say(f"log         {server.log}\n")
    more = [
        f"curl {server.inference}/ping",
        f"curl {server.management}/models",
        f"curl {server.management}/models/fizbuz_package",
        f"curl -X PUT '{server.management}/models/fizbuz_package?min_worker=2&synchronous=true'",
        f"curl {server.metrics}/metrics",
        "locust --host " + server.inference + "   # then open http://127.0.0.1:8089",
    ]
    for line in lines + more:
        say(line)


def main() -> int:
    """Run the tour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exit", action="store_true", help="stop after the tour instead of serving on")
    parser.add_argument("--users", type=int, default=16, help="users of the load test")
    parser.add_argument("--seconds", type=int, default=5, help="length of the load test")
    parser.add_argument("--inference-address", help="instead of the one in config.properties")
    parser.add_argument("--management-address", help="instead of the one in config.properties")
    args = parser.parse_args()
    # A terminal that closes, or a supervisor, ends the tour as Ctrl-C does: the server is stopped with it.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))

    step("Starting the server")
    server = Running(args.inference_address, args.management_address)
    code = 0
    try:
        said = server.wait_until_ready()
        say(f"curl {server.inference}/ping\n  -> {said.strip()}")
        step("One prediction with each archive")
        lines = predict_each(server)
        step("Scaling fizbuz_package through the management API")
        scale(server, "fizbuz_package")
        step(f"Load test: {args.users} users for {args.seconds} s")
        load_test(server, "fizbuz_package", args.users, args.seconds)
        if not args.exit:
            step("Serving; Ctrl-C stops")
            tell_what_to_try(server, lines)
            server.wait()
    except KeyboardInterrupt:
        say("\nStopping: what was accepted is answered first.")
    except TourError as error:
        console.print(str(error), style="red", markup=False)
        code = 1
    ended = server.stop()
    say(f"The server has stopped with code {ended}.")
    return code or ended


if __name__ == "__main__":
    sys.exit(main())
