"""Serves the worked archives and shows the whole tour: ready, predict, scale, load test, and what to try next."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from marserve.archive.signature import Signature
from marserve.cli.pidfile import find_server

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "config.properties"
#: The archive that is scaled and load-tested.
STAR = "fizbuz_package"
#: Longest wait for the server, seconds; the slowest part is the first import of torch.
START_TIMEOUT = 180.0
#: Longest body that is shown in a line of its own, and lines of a log that say why something failed.
SHORT_BODY, LAST_LINES = 70, 12
#: Exit codes beside 0 and the server's.
FAILED, INTERRUPTED = 1, 130
DOORS = ("inference", "management", "metrics")
#: Hosts that mean every network, which one can listen on but not call.
CALLABLE = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}
console = Console(highlight=False, soft_wrap=True)


class TourError(Exception):
    """The tour cannot go on; the message says why."""


def say(text: str, style: str = "") -> None:
    """Print text as it is."""
    console.print(text, markup=False, style=style)


def step(text: str) -> None:
    """Print what comes next."""
    say(f"\n== {text}", style="bold")


def short(path: Path) -> str:
    """Return a path as one would type it in the repository."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def program(name: str) -> str:
    """Return the path of a command of this environment."""
    return short(Path(sys.executable).with_name(name))


def end_with_parent() -> None:
    """Have the system end this process when the tour is killed (Linux); it runs in a child before its program."""
    parent_death_signal = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGTERM)


class Server:
    """A server for the length of a block, stopped in any case when the block ends.

    Attributes:
        inference, management, metrics: its addresses, known once it is ready; "" where there is none.
        code: its exit code, known after the block.
    """

    def __init__(self, work: Path, settings: dict[str, str]) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.log = work / "server.log"
        self.pid_file = work / "server.pid"
        self.command = [program("marserve"), "start", "--foreground", "--config", CONFIG]
        for key, value in settings.items():
            self.command += ["--set", f"{key}={value}"]
        self.command += ["--pid-file", short(self.pid_file)]
        self.inference = self.management = self.metrics = ""
        self.code = 0

    def __enter__(self) -> Server:
        found = find_server(self.pid_file)
        if found is not None and found.is_alive():
            raise TourError(
                f"Server {found.pid} holds {short(self.pid_file)}. Stop it, or give --work another folder."
            )
        say("$ " + shlex.join(self.command))
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches this script alone, which then lets the server finish its work.
            self._process = subprocess.Popen(
                self.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._process.terminate()  # does nothing when it has ended
        while True:
            try:
                if kind is KeyboardInterrupt:
                    say("\nStopping: what was accepted is answered first. Ctrl-C again ends it at once.")
                    kind = None
                self.code = self._process.wait()
                break
            except KeyboardInterrupt:
                self._process.terminate()
            except OSError:  # the terminal has gone: nobody reads, and the server is stopped all the same
                kind = None
        with contextlib.suppress(OSError):
            say(f"The server has ended with code {self.code}.")

    def wait_until_ready(self) -> None:
        """Return once the archives of the start-up are loaded; the addresses are known then."""
        with working("Waiting until the archives are loaded"):
            end = time.monotonic() + START_TIMEOUT
            while not self._read_addresses():
                if self._process.poll() is not None:
                    raise TourError(f"The server ended with code {self._process.returncode}:\n{self.last_lines()}")
                if time.monotonic() > end:
                    raise TourError(f"The server was not ready after {START_TIMEOUT:g} s:\n{self.last_lines()}")
                time.sleep(0.1)
        if not self.inference.startswith("http") or not self.management.startswith("http"):
            raise TourError(f"The tour calls http addresses; {CONFIG} names {self.inference} and {self.management}.")

    def _read_addresses(self) -> bool:
        """Take the addresses from the pid file, which has them as soon as the server is ready."""
        found = find_server(self.pid_file) if self._process.poll() is None else None
        if found is None:
            return False
        # The file of an earlier tour that was killed names another process.
        addresses = found.addresses if found.pid == self._process.pid else []
        found.close()
        for doors, address in addresses:
            for host, callable_host in CALLABLE.items():
                address = address.replace(host, callable_host)
            for door in doors.split(","):
                setattr(self, door, address)
        return bool(addresses)

    def last_lines(self) -> str:
        """Return the end of the server's log."""
        lines = self.log.read_text(errors="replace").splitlines()
        if any("cannot be listened on" in line for line in lines):
            lines.append("Or take other ports: " + " ".join(f"--{door}-address http://127.0.0.1:0" for door in DOORS))
        return "\n".join(lines[-LAST_LINES:])

    def wait(self) -> None:
        """Return when somebody else has stopped the server."""
        if self._process.wait():
            raise TourError(f"The server ended with code {self._process.returncode}:\n{self.last_lines()}")
        say("The server was stopped from elsewhere.")


@contextlib.contextmanager
def working(text: str):
    """Show that a long step goes on: turning on a terminal, a line elsewhere."""
    if not console.is_terminal:
        say(f"{text} ...")
        yield
        return
    with console.status(text):
        yield


def call(method: str, url: str, body: bytes | None = None, content_type: str = "") -> str:
    """Send one request and return the text of its answer.

    Raises:
        TourError: there is no answer, or one that is an error.
    """
    headers = {"content-type": content_type} if content_type else {}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        raise TourError(f"{method} {url} was answered with {error.code} {error.read().decode().strip()}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TourError(f"{method} {url} got no answer: {error or type(error).__name__}") from None


def predict_each(server: Server) -> list[str]:
    """Make one prediction with each archive that the server has; return the curl lines that do the same."""
    listed = [model["modelName"] for model in json.loads(call("GET", server.management + "/models"))["models"]]
    worked = [name for name in listed if (ROOT / "signature" / f"{name}.json").is_file()]
    if STAR not in worked:
        raise TourError(f"The server has no {STAR}; build the archives with: make archives\n{server.last_lines()}")
    lines = []
    for name in worked:
        signature = Signature.parse(json.loads((ROOT / "signature" / f"{name}.json").read_text()))
        body = json.dumps(signature.example_input(), separators=(",", ":"))
        url = f"{server.inference}/predictions/{name}"
        answer = call("POST", url, body.encode(), "application/json")
        say(f"{name}: {body if len(body) < SHORT_BODY else body[:SHORT_BODY] + ' ...'}\n  -> {answer}")
        lines.append(f"curl {url} -H 'content-type: application/json' -d {shlex.quote(body)}")
    return lines


def scale(server: Server) -> None:
    """Scale one archive to two workers: once without waiting, once until they are ready."""
    for query in ("max_worker=1", "min_worker=2&synchronous=true"):
        url = f"{server.management}/models/{STAR}?{query}"
        began = time.monotonic()
        say(f"curl -X PUT {shlex.quote(url)}\n  -> {call('PUT', url)} ({time.monotonic() - began:.2f} s)")


def load_test(server: Server, users: int, seconds: int) -> None:
    """Run a short Locust test against one archive and print its table.

    Raises:
        TourError: it saw failures, or could not run.
    """
    command = [program("locust"), "--headless", "--host", server.inference, "--model", STAR]
    command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    say("$ " + shlex.join(command))
    # The tables that it writes to standard error are wider than most terminals.
    command += ["--json", "--only-summary", "--loglevel", "WARNING"]
    with working(f"{users} users for {seconds} s"):
        ended = subprocess.run(
            command, cwd=ROOT, check=False, capture_output=True, text=True, preexec_fn=end_with_parent
        )
    found = json.loads(ended.stdout) if ended.stdout.strip() else []
    for entry in found:
        print_figures(entry)
    if ended.returncode or not found:
        _, _, reasons = ended.stderr.rpartition("Error report")
        raise TourError(f"The load test ended with code {ended.returncode}:\n{reasons.strip()}")


def print_figures(entry: dict[str, Any]) -> None:
    """Print what Locust found out about one kind of request."""
    counts = {int(milliseconds): count for milliseconds, count in entry["response_times"].items()}
    times = [milliseconds for milliseconds in sorted(counts) for _ in range(counts[milliseconds])]
    duration = entry["last_request_timestamp"] - entry["start_time"]
    figures = {
        "requests": entry["num_requests"],
        "failures": entry["num_failures"],
        "per second": entry["num_requests"] / duration,
        "median ms": times[len(times) // 2],
        "95 % ms": times[len(times) * 95 // 100],
        "99 % ms": times[len(times) * 99 // 100],
        "longest ms": times[-1],
    }
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for column in figures:
        table.add_column(column, justify="right")
    table.add_row(*(f"{figure:,.0f}" for figure in figures.values()))
    console.print(table)


def tell_what_to_try(server: Server, lines: list[str]) -> None:
    """Print the addresses, and lines to paste into another terminal."""
    for door in DOORS:
        say(f"{door:<12}{getattr(server, door) or 'none'}")
    say(f"{'log':<12}{short(server.log)}\n")
    more = [
        f"curl {server.inference}/ping",
        f"curl {server.management}/models/{STAR}",
        f"curl -X PUT '{server.management}/models/{STAR}?min_worker=1&synchronous=true'",
        f"curl {server.metrics}/metrics" if server.metrics else "",
        f"{program('marserve')} status --pid-file {short(server.pid_file)}",
        f"{program('locust')} --host {server.inference}   # its web page: http://127.0.0.1:8089",
    ]
    for line in filter(None, lines + more):
        say(line)


def take_the_tour(server: Server, args: argparse.Namespace) -> list[str]:
    """Show everything with a server that is starting; return the curl lines of its predictions."""
    server.wait_until_ready()
    say(f"curl {server.inference}/ping\n  -> {call('GET', server.inference + '/ping')}")
    step("One prediction with each archive")
    lines = predict_each(server)
    step(f"Scaling {STAR} through the management API")
    scale(server)
    step("Load test")
    load_test(server, args.users, args.seconds)
    return lines


def serve_on(server: Server, lines: list[str]) -> None:
    """Tell what to try, and wait for the end."""
    step("Serving; Ctrl-C stops")
    tell_what_to_try(server, lines)
    server.wait()


def interrupt(number: int, frame: object) -> None:
    """End the tour: on Ctrl-C, also where a shell had it ignored; when told to; when the terminal closes."""
    raise KeyboardInterrupt


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exit", action="store_true", help="stop after the tour instead of serving on")
    parser.add_argument("--users", type=int, default=16, help="users of the load test")
    parser.add_argument("--seconds", type=int, default=5, help="length of the load test")
    for door in DOORS:
        parser.add_argument(f"--{door}-address", metavar="URL", help=f"instead of the one in {CONFIG}; port 0: any")
    parser.add_argument("--model-store", metavar="DIR", help=f"instead of the one in {CONFIG}")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "tour", help="for the log and the pid file")
    return parser.parse_args()


def main() -> int:
    """Run the tour and return its exit code: 0 also when Ctrl-C ends what is served after it."""
    args = parse_arguments()
    keys = [*(f"{door}_address" for door in DOORS), "model_store"]
    settings = {key: value for key in keys if (value := getattr(args, key))}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    server = Server(args.work.resolve(), settings)
    step("Starting the server")
    code = INTERRUPTED
    try:
        with server:
            lines = take_the_tour(server, args)
            code = 0
            if not args.exit:
                serve_on(server, lines)
    except KeyboardInterrupt:
        pass
    except TourError as error:
        say(str(error), style="red")
        code = FAILED
    except BrokenPipeError:  # who read our output has had enough; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    return code or server.code


if __name__ == "__main__":
    sys.exit(main())
