"""What the tests of the feature tables drive: the commands of an old server's users, of marserve or of the original.

``CONTRACT_TORCHSERVE`` and ``CONTRACT_MMS`` name the originals' commands; without them, marserve's own are run. A
test holds one row of a table (``@pytest.mark.row("B4")``) and says the same of both, but where marserve differs on
purpose: there it asks ``product.is_genuine``.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import signal
import subprocess
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pairs import PATIENCE, TORCHSERVE, Original, until

#: Variables that would reach into any server under test.
_HIDDEN = ("LOG_LOCATION", "METRICS_LOCATION")


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Product:
    """The commands of one installation, for the users of one old server."""

    def __init__(self, original: Original = TORCHSERVE) -> None:
        self.original = original
        self.is_genuine = original.is_asked
        self.folder = original.path.parent
        #: interpreter that users import the old server's packages in
        self.python = str(self.folder / "python")

    def environment(self, folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for a command that keeps its files in ``folder``."""
        hidden = (*self.original.hidden, *_HIDDEN)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        own = {name: str(folder) for name in ("TMPDIR", "TEMP", "HOME")}
        own["PATH"] = f"{self.folder}:{os.environ['PATH']}"
        return {**kept, **own, **(more or {})}

    def run(
        self, folder: Path, command: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the installation in ``folder`` to its end; standard error is part of ``stdout``."""
        return subprocess.run(
            [str(self.folder / command), *arguments],
            cwd=folder,
            env=self.environment(folder, environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@dataclass
class House:
    """A folder with a model store, and the servers that are started on it; ``close`` ends them."""

    product: Product
    folder: Path
    running: list[Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store.mkdir(parents=True, exist_ok=True)

    @property
    def store(self) -> Path:
        """The model store."""
        return self.folder / "store"

    def archive(
        self,
        name: str,
        code: str,
        *,
        config: str = "",
        version: str = "",
        file: str = "",
        handler: str = "service.py",
        files: Mapping[str, str | bytes] | None = None,
        model: Mapping[str, str] | None = None,
    ) -> str:
        """Write ``NAME.mar`` with a handler ``service.py`` into the store; return the file's name.

        Args:
            config: text of its ``model-config.yaml``; "" for none.
            version: "" for what the old archiver writes.
            file: name of the archive's file, where it is another.
            files: what else it holds, by name.
            model: more members of the manifest's ``model``.
        """
        original = self.product.original
        told = {"modelName": name, **original.model, "handler": handler, **(model or {})}
        if version:
            told["modelVersion"] = version
        held: dict[str, str | bytes] = {"service.py": code, **(files or {})}
        if config:
            told["configFile"] = "model-config.yaml"
            held["model-config.yaml"] = config
        path = self.store / (file or f"{name}.mar")
        with zipfile.ZipFile(path, "w") as archive:
            for inside, content in held.items():
                archive.writestr(inside, content)
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({**original.manifest, "model": told}))
        return path.name

    def start(
        self,
        *models: str,
        settings: Mapping[str, str] | None = None,
        flags: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        config: Path | None = None,
    ) -> Running:
        """Run the command in the foreground and return once it has said ``Model server started.``"""
        server = self.launch(*models, settings=settings, flags=flags, environment=environment, config=config)
        server.wait_for_line("Model server started.")
        return server

    def launch(
        self,
        *models: str,
        settings: Mapping[str, str] | None = None,
        flags: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        config: Path | None = None,
    ) -> Running:
        """Run the command in the foreground; ``config`` replaces the file that ``settings`` are written to.

        Without ``flags``, nothing is started but what most tests are about, and models may be registered.
        """
        original = self.product.original
        doors, written = self.settings(settings)
        if config is None:
            config = self.folder / "test.properties"
            config.write_text("".join(f"{key}={value}\n" for key, value in written.items()))
        chosen = [*original.quiet, *original.opening] if flags is None else flags
        arguments = [*original.start, "--model-store", str(self.store), *chosen]
        arguments += [original.config_flag, str(config)] if str(config) != os.devnull else []
        arguments += ["--models", *models] if models else []
        process = subprocess.Popen(
            [str(original.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self.product.environment(self.folder, environment),
            start_new_session=True,
        )
        server = Running(self, process, doors)
        self.running.append(server)
        return server

    def settings(self, more: Mapping[str, str] | None = None) -> tuple[dict[str, int], dict[str, str]]:
        """Return ports by door, and settings with those ports and what keeps a server quiet."""
        original = self.product.original
        ports = original.free_ports(len(original.doors) + len(original.other_ports))
        doors = dict(zip(original.doors, ports, strict=False))
        written = {f"{door}_address": f"http://127.0.0.1:{port}" for door, port in doors.items()}
        written |= dict(zip(original.other_ports, map(str, ports[len(doors) :]), strict=True))
        return doors, {**written, **original.settings, **(more or {})}

    def close(self) -> None:
        """End what still runs."""
        for server in self.running:
            server.kill()


class Running:
    """A server that was started.

    Attributes:
        lines: what it has written so far.
        doors: ports by ``inference``, ``management``, ``metrics``.
    """

    def __init__(self, house: House, process: subprocess.Popen[bytes], doors: dict[str, int]) -> None:
        self.house = house
        self.process = process
        self.doors = doors
        self.lines: list[str] = []
        self._heard: queue.Queue[str | None] = queue.Queue()
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self.lines.append(line)
            self._heard.put(line)
        self._heard.put(None)

    @property
    def log(self) -> str:
        """Everything that it has written so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """Return the match of the next line that matches; fails the test if it does not come."""
        while True:
            try:
                line = self._heard.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"No line matched {pattern!r}. So far:\n{self.log}") from None
            assert line is not None, f"The server ended before a line matched {pattern!r}:\n{self.log}"
            found = re.search(pattern, line)
            if found:
                return found

    def ask(
        self,
        target: str,
        body: bytes | str | None = None,
        *,
        door: str = "inference",
        method: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask one request; the method is POST where there is a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.doors[door], timeout=PATIENCE)
        try:
            method = method or ("GET" if body is None else "POST")
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def manage(self, method: str, target: str, **more: Any) -> Answer:
        """Ask the management door."""
        return self.ask(target, door="management", method=method, **more)

    def describe(self, model: str) -> dict[str, Any]:
        """Return a model's description, of several versions the first."""
        told = self.manage("GET", f"/models/{model}").json()
        entry: dict[str, Any] = told[0] if isinstance(told, list) else told
        return entry

    def wait_for_workers(self, model: str, count: int) -> list[dict[str, Any]]:
        """Return the workers of a model once so many are READY."""

        def ready() -> list[dict[str, Any]]:
            return [worker for worker in self.describe(model)["workers"] if worker["status"] == "READY"]

        until(f"{model} has {count} workers", lambda: len(ready()) == count)
        return ready()

    def end(self) -> int:
        """End it by the command's ``--stop``; return the exit code of the one that started it."""
        command = self.house.product.original.command
        self.house.product.run(self.house.folder, command, "--stop", "--foreground")
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it and all that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            finally:
                if self.process.poll() is None:
                    os.killpg(self.process.pid, signal.SIGKILL)
                    self.process.wait()
        self._reader.join(PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
