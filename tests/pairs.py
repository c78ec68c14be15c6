"""Request-and-answer pairs: recorded from an old server, asked of whatever its command starts, and compared.

A file of pairs has the settings of its server and stories. The exchanges of a story follow each other; what they
register is unregistered behind it. ``settings`` are added to those of ``Server``. ``models`` are loaded at start;
without it, ``echo`` alone is.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONTRACT = Path(__file__).parent / "contract"
#: Longest wait for anything, seconds.
PATIENCE = 90.0


@dataclass(frozen=True)
class Original:
    """An old server, and what its command and its archives look like.

    Attributes:
        name: of its folder of pairs.
        command: its command; marserve has one of the same name.
        variable: names the original's command, where it is to be asked and not marserve's.
        start: flags of every start.
        quiet: those that keep out what most tests are not about.
        opening: those that let models be registered.
        config_flag: names the configuration.
        settings: what keeps a server quiet and small.
        doors: those that it has.
        other_ports: settings that hold a port too.
        manifest: what its archiver writes beside the model.
        model: what it writes of every model.
        hidden: beginnings of variables that would reach into a server under test.
        highest_port: of those that it takes.
    """

    name: str
    command: str
    variable: str
    start: tuple[str, ...]
    quiet: tuple[str, ...]
    opening: tuple[str, ...]
    config_flag: str
    settings: Mapping[str, str]
    doors: tuple[str, ...]
    other_ports: tuple[str, ...] = ()
    manifest: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ("MARSERVE_",)
    highest_port: int = 65535

    @property
    def folder(self) -> Path:
        """Folder of its pairs."""
        return CONTRACT / self.name

    @property
    def is_asked(self) -> bool:
        """Whether the original is asked, and not marserve."""
        return self.variable in os.environ

    @property
    def path(self) -> Path:
        """Command to start."""
        return Path(os.environ.get(self.variable) or Path(sys.executable).with_name(self.command))

    def free_ports(self, count: int) -> list[int]:
        """Return ports that nobody listens at, and that the server takes."""
        if not self.is_asked or self.highest_port == 65535:
            return free_ports(count)
        return free_ports_below(self.highest_port, count)


TORCHSERVE = Original(
    name="torchserve",
    command="torchserve",
    variable="CONTRACT_TORCHSERVE",
    start=("--start", "--foreground"),
    quiet=("--ncs", "--disable-token-auth"),
    opening=("--enable-model-api",),
    config_flag="--ts-config",
    settings={
        "default_workers_per_model": "1",
        "disable_system_metrics": "true",
    },
    doors=("inference", "management", "metrics"),
    other_ports=("grpc_inference_port", "grpc_management_port"),
    manifest={"createdOn": "01/01/2026 00:00:00", "runtime": "python", "archiverVersion": "0.12.0"},
    model={"modelVersion": "1.0"},
    hidden=("TS_", "MARSERVE_"),
)
MMS = Original(
    name="mms",
    command="multi-model-server",
    variable="CONTRACT_MMS",
    start=("--start", "--foreground"),
    quiet=(),
    opening=(),
    config_flag="--mms-config",
    settings={"default_workers_per_model": "1"},
    doors=("inference", "management"),
    manifest={
        "runtime": "python",
        "modelServerVersion": "1.0",
        "implementationVersion": "1.0",
        "specificationVersion": "1.0",
    },
    hidden=("MMS_", "SAGEMAKER_", "MARSERVE_"),
    highest_port=32766,
)
ORIGINALS = (TORCHSERVE, MMS)

#: What every answer carries; an answer without them is marked ``bare``.
STANDING = {
    "Pragma": "no-cache",
    "Cache-Control": "no-cache; no-store, must-revalidate, private",
    "Expires": "Thu, 01 Jan 1970 00:00:00 UTC",
}
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
#: What differs from run to run, in the bodies of both sides.
VARYING = (
    (r'\\"[^" ]*/(\w+\.py)\\"', r'\\"<unpacked>/\1\\"'),
    (r"[0-9a-f]{64}", "<digest>"),
    (UUID, "<uuid>"),
    (r'"(pid|memoryUsage)": \d+', r'"\1": <number>'),
    (r'"id": "\d+(-[0-9a-f]{8})*"', '"id": "<number>"'),
    (r'"startTime": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', '"startTime": "<moment>"'),
    (r'"version": "[^"]+"', '"version": "<version>"'),
)

Exchange = dict[str, Any]


class Origin:
    """A web server with the files of a folder."""

    def __init__(self, folder: Path) -> None:
        handler = partial(_Silent, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server:
    """A server in an old server's dialect, started by its command with a folder and ports of its own."""

    def __init__(
        self, settings: Mapping[str, str], original: Original = TORCHSERVE, models: Sequence[str] = ("echo=echo.mar",)
    ) -> None:
        self.original = original
        self._own = tempfile.TemporaryDirectory(prefix="pairs-")
        self.folder = Path(self._own.name)
        make_store(self.folder, original)
        self.origin = Origin(self.folder / "outside")
        ports = original.free_ports(len(original.doors) + len(original.other_ports))
        self.doors = dict(zip(original.doors, ports, strict=False))
        written = {
            **{f"{door}_address": f"http://127.0.0.1:{port}" for door, port in self.doors.items()},
            **dict(zip(original.other_ports, map(str, ports[len(original.doors) :]), strict=True)),
            "model_store": str(self.folder / "store"),
            **original.settings,
            **settings,
        }
        written = {key: self._filled(value) for key, value in written.items()}
        config = self.folder / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in written.items()))
        self.doors = {door: _port(written.get(f"{door}_address", "")) or port for door, port in self.doors.items()}
        command = str(original.path)
        self.is_genuine = original.is_asked
        self._log = (self.folder / "log").open("w")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(original.hidden)}
        environment |= {name: str(self.folder) for name in ("TMPDIR", "TEMP", "HOME", "LOG_LOCATION")}
        environment |= {"METRICS_LOCATION": str(self.folder), "PATH": f"{Path(command).parent}:{os.environ['PATH']}"}
        arguments = [*original.start, *original.quiet, original.config_flag, str(config)]
        arguments += [] if settings.get("enable_model_api") == "false" else original.opening
        arguments += ["--model-store", str(self.folder / "store"), "--models", *models]
        self.process = subprocess.Popen(
            [command, *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=environment,
            start_new_session=True,
        )
        until("the models of the start-up are ready", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            answer = self.ask({"door": "management", "target": "/models/echo"})
        except OSError:
            return False
        return "READY" in "".join(answer["body"]) and "Model server started." in self.log

    @property
    def log(self) -> str:
        """What the server has written."""
        return (self.folder / "log").read_text(errors="replace")

    def ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request, as pairs hold it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.doors[asked["door"]], timeout=PATIENCE)
        try:
            body = asked.get("body", "").encode() or None
            if "size" in asked:
                body = b"x" * asked["size"]
            connection.putrequest(asked.get("method", "GET"), self._filled(asked["target"]))
            for name, value in asked.get("headers", []):
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return self._shown(answer, answer.read())
        finally:
            connection.close()

    def _filled(self, text: str) -> str:
        """Put in what a pair cannot know; ``{inference}`` is that door's port."""
        text = text.replace("{origin}", self.origin.url).replace("{folder}", str(self.folder))
        return text.replace("{inference}", str(self.doors["inference"]))

    def _shown(self, answer: http.client.HTTPResponse, body: bytes) -> dict[str, Any]:
        headers = dict(answer.getheaders())
        headers.pop("content-length", None)
        standing = {name: headers.pop(name, None) for name in STANDING}
        request_id = headers.pop("x-request-id", "")
        text = body.decode("utf-8", "surrogateescape")
        text = text.replace(self.origin.url, "{origin}").replace(str(self.folder), "{folder}")
        for pattern, shown in VARYING:
            text = re.sub(pattern, shown, text)
        found: dict[str, Any] = {"status": answer.status, "phrase": answer.reason, "headers": headers}
        if standing != STANDING or not re.fullmatch(UUID, request_id):
            found["bare"] = True
        return {**found, "body": text.split("\n")}

    def clean(self) -> None:
        """Unregister all but the models of the start-up."""
        for listed in self._json("/models?limit=100")["models"]:
            name = listed["modelName"]
            if self.original is TORCHSERVE:
                self._clean_versions(name)
            elif not self._json(f"/models/{name}")["loadedAtStartup"]:
                self.ask({"door": "management", "method": "DELETE", "target": f"/models/{name}"})

    def _clean_versions(self, name: str) -> None:
        versions = [entry["modelVersion"] for entry in self._json(f"/models/{name}/all")]
        default = self._json(f"/models/{name}")[0]["modelVersion"]
        for version in sorted(versions, key=lambda version: version == default):
            if name != "echo" or version != "1.0":
                self.ask({"door": "management", "method": "DELETE", "target": f"/models/{name}/{version}"})

    def _json(self, target: str) -> Any:
        return json.loads(
            "\n".join(self.ask({"door": "management", "target": target})["body"]).replace("<number>", "0")
        )

    def stop(self) -> None:
        """End the server and all that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self._log.close()
            self.origin.close()
            self._own.cleanup()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2] or 0) if address.startswith("http") else 0


@contextmanager
def serving(settings: Mapping[str, str], original: Original = TORCHSERVE) -> Iterator[Server]:
    """Run a server for the length of a block."""
    server = Server(settings, original)
    try:
        yield server
    finally:
        server.stop()


def until(what: str, is_so: Any) -> None:
    """Ask until it holds: for what a server shows and does not announce."""
    give_up = threading.Event()
    timer = threading.Timer(PATIENCE, give_up.set)
    timer.start()
    try:
        while not is_so():
            assert not give_up.wait(0.05), f"It never came true that {what}."
    finally:
        timer.cancel()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_ports_below(most: int, count: int) -> list[int]:
    """Return ports that nobody listens at, ``most`` and less: for a server that takes no others."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(most // 2, most)
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            found.append(port)
    return found


def make_store(folder: Path, original: Original = TORCHSERVE) -> None:
    """Write the archives of ``archives.json`` into ``store`` and ``outside``."""
    for name in ("store", "outside"):
        (folder / name).mkdir()
    for name, model in json.loads((original.folder / "archives.json").read_text()).items():
        path = folder / name if "/" in name else folder / "store" / name
        if isinstance(model, str):
            path.write_text(model)
            continue
        with zipfile.ZipFile(path, "w") as archive:
            if model is None:  # neither a manifest nor a handler
                archive.writestr("readme.txt", "empty")
                continue
            file = model["handler"].partition(":")[0]
            archive.write(CONTRACT / "handlers" / file, file)
            told = {**original.manifest, "model": {**original.model, **model}}
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(told))


def files(original: Original = TORCHSERVE) -> list[Path]:
    """Return the files of pairs."""
    return sorted(path for path in original.folder.glob("*.json") if path.name != "archives.json")


def play(server: Server, exchange: Exchange) -> dict[str, Any]:
    """Ask one request, again and again where the exchange says ``until``; return the last answer."""
    answer = server.ask(exchange["ask"])
    wanted = exchange.get("until")
    if wanted:

        def is_there() -> bool:
            answer.update(server.ask(exchange["ask"]))
            return wanted in "\n".join(answer["body"])

        until(f"{exchange['ask']['target']} answers with {wanted!r}", is_there)
    return answer


def wanted(server: Server, exchange: Exchange) -> dict[str, Any]:
    """Return the answer of a pair: where we differ on purpose, the genuine one is beside it."""
    return dict(exchange["genuine"] if server.is_genuine and "genuine" in exchange else exchange["answer"])


def digest_of(body: list[str]) -> str:
    """Return what stands for a body in a pair that would be too long with it."""
    text = "\n".join(body).encode(errors="surrogateescape")
    return f"<sha256 {hashlib.sha256(text).hexdigest()}>"


def differences(expected: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """Return what is not as expected, a line each.

    A body of ``["<any>"]`` fits every one; of one that has thousands of lines there is ``["<sha256 …>"]``.
    """
    found = []
    for name in ("status", "phrase", "headers", "bare", "body"):
        if name == "body" and expected["body"] in (["<any>"], [digest_of(answer["body"])]):
            continue
        if expected.get(name) != answer.get(name):
            found.append(f"{name}: expected {expected.get(name)!r}, got {answer.get(name)!r}")
    return found
