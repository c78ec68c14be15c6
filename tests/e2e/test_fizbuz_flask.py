"""The FizBuz archive in a Flask application on gunicorn answers as the server does, and follows its file."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from live import PATIENCE, ROOT, serving
from rows import until

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
#: Bodies and their content types: good ones, and each way to be refused.
BODIES = [
    (b'{"input.1": 14}', JSON),
    (b'{"input.1": 14.0}', f"{JSON}; charset=utf-8"),
    (b'{"input.1": 1022}', ""),
    (b"input.1=5", FORM),
    (b'{"input.1": 1023}', JSON),
    (b'{"input.1": "\xc3\xa4"}', JSON),
    (b'{"other": 1}', JSON),
    (b"[14]", JSON),
    (b"{cut off", JSON),
    (b"", JSON),
    (b"", ""),
    (b"\xff", "text/plain"),
    (b"14", "text/plain"),
]
WORKERS = 2


class Gunicorn:
    """The application on gunicorn as its page says, on a port of the system's choice.

    Attributes:
        address: base URL.
        scratch: folder for temporary files, its own.
    """

    def __init__(self, archive: Path, folder: Path) -> None:
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._log = folder / "gunicorn.log"
        # A listening socket of ours: who connects before a worker is ready waits in its queue.
        with socket.create_server(("127.0.0.1", 0)) as listener, self._log.open("wb") as log:
            self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("gunicorn")),
                    *("--workers", str(WORKERS), "--bind", f"fd://{listener.fileno()}"),
                    f'handlers.fizbuz_flask:application("{archive}")',
                ],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(self.scratch), "PYTHONDONTWRITEBYTECODE": "1"},
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """Everything that it has written so far."""
        return self._log.read_text()

    def unpacked(self) -> int:
        """Return how many archives lie unpacked."""
        return len([path for path in self.scratch.iterdir() if path.name.startswith("marserve-")])

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()


@pytest.fixture
def archive(tmp_path: Path, fizbuz_store: Path) -> Path:
    """A copy of the archive that a test may replace."""
    return Path(shutil.copy(fizbuz_store / "fizbuz_package.mar", tmp_path))


@pytest.fixture
def gunicorn(tmp_path: Path, archive: Path) -> Iterator[Gunicorn]:
    running = Gunicorn(archive, tmp_path)
    # One that loads later would find what a test has done to the file, and gunicorn ends when a worker cannot begin.
    until("each worker has unpacked the archive", lambda: running.unpacked() == WORKERS)
    yield running
    running.stop()


def ask(address: str, body: bytes, content_type: str) -> httpx.Response:
    headers = {"content-type": content_type} if content_type else {}
    return httpx.post(
        f"{address}/predictions/fizbuz_package", content=body, headers=headers, timeout=PATIENCE, trust_env=False
    )


def word(gunicorn: Gunicorn) -> object:
    return ask(gunicorn.address, b'{"input.1": 14}', JSON).json()["next_number"]


def replaced(archive: Path, change: Callable[[bytes], bytes]) -> None:
    """Put an archive in the place of another, at one blow; its words are changed."""
    draft = archive.with_suffix(".new")
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(draft, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, change(content) if name == "fizbuz_numbers.py" else content)
    draft.replace(archive)


def test_it_answers_as_the_server_does_byte_for_byte(gunicorn: Gunicorn, fizbuz_store: Path) -> None:
    def seen(address: str, body: bytes, content_type: str) -> tuple[int, str, bytes]:
        answer = ask(address, body, content_type)
        return answer.status_code, answer.headers["content-type"], answer.content

    answers = [seen(gunicorn.address, *one) for one in BODIES]
    assert answers[0] == (200, JSON, b'{"next_number":"FizBuz"}')
    assert {status for status, _, _ in answers} == {200, 400}
    with serving(fizbuz_store, "fizbuz_package=fizbuz_package.mar") as server:
        assert answers == [seen(server.inference, *one) for one in BODIES]
        pings = [httpx.get(f"{address}/ping", trust_env=False) for address in (gunicorn.address, server.inference)]
    assert pings[0].content == pings[1].content == b'{"status":"Healthy"}\n'
    assert pings[0].headers["content-type"] == pings[1].headers["content-type"]


def test_a_changed_archive_answers_from_the_next_request_on_in_each_worker(gunicorn: Gunicorn, archive: Path) -> None:
    assert {word(gunicorn) for _ in range(20)} == {"FizBuz"}

    replaced(archive, lambda code: code.replace(b'"FizBuz")', b'"FizzBuzz")'))
    assert {word(gunicorn) for _ in range(20)} == {"FizzBuzz"}
    assert f"{archive} has changed and was loaded anew." in gunicorn.log
    assert gunicorn.unpacked() <= WORKERS, "the one before is closed"

    replaced(archive, lambda code: code.replace(b'"FizzBuzz")', b'"Again")'))
    assert {word(gunicorn) for _ in range(20)} == {"Again"}
    assert gunicorn.unpacked() <= WORKERS


def test_a_broken_archive_changes_nothing_and_the_log_says_why(gunicorn: Gunicorn, archive: Path) -> None:
    good = archive.read_bytes()
    assert word(gunicorn) == "FizBuz"

    archive.write_bytes(good[:1000])
    assert {word(gunicorn) for _ in range(10)} == {"FizBuz"}
    assert f"{archive} has changed and cannot be loaded; the one before answers on." in gunicorn.log
    assert 1 <= gunicorn.log.count("damaged or cut short") <= WORKERS, "each worker tries it once"

    archive.unlink()
    assert {word(gunicorn) for _ in range(10)} == {"FizBuz"}
    assert "No such file or directory" in gunicorn.log

    archive.write_bytes(good)
    replaced(archive, lambda code: code + b"\nraise RuntimeError('no words today')\n")
    assert {word(gunicorn) for _ in range(10)} == {"FizBuz"}
    assert "no words today" in gunicorn.log

    archive.write_bytes(good)
    replaced(archive, lambda code: code.replace(b'"FizBuz")', b'"mended")'))
    assert {word(gunicorn) for _ in range(10)} == {"mended"}


def test_nothing_is_left_behind(tmp_path: Path, archive: Path) -> None:
    running = Gunicorn(archive, tmp_path)
    assert word(running) == "FizBuz"
    assert running.unpacked() > 0
    assert running.stop() == 0, running.log
    assert running.unpacked() == 0
