"""Workers that their developer starts: the command that the log shows, run in a terminal of its own."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live import PATIENCE, LiveServer, launched, make_archive
from services import STEERED


@contextmanager
def started_by_hand(server: LiveServer) -> Iterator[subprocess.Popen[str]]:
    """Run what the log says next, as if it were pasted into a shell."""
    command = server.wait_for_line(r"Start the worker steered:1\.0#9000 yourself \(debug=true\): (.*)$")[1]
    worker = subprocess.Popen(
        f"exec env {command}", shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()


def test_a_worker_that_is_started_by_hand_serves_takes_its_time_and_has_a_successor(tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_archive(store, "steered", STEERED)
    settings = {"debug": "true", "default_response_timeout": "1", "job_timeout": "1"}
    with launched(store, "steered", settings=settings) as server:
        server.wait_until_open()
        with started_by_hand(server) as worker:
            server.wait_until_ready()
            answer = server.predict("steered", {"say": "hello", "sleep": 2.5})
            assert (answer.status_code, answer.json()["pid"]) == (200, worker.pid), answer.text
            worker.send_signal(signal.SIGINT)
            said = worker.communicate(timeout=PATIENCE)[0]
        assert "hello" in said
        assert "KeyboardInterrupt" in said
        assert "hello" not in server.log
        with started_by_hand(server) as worker:
            assert server.predict("steered", {}).json()["pid"] == worker.pid
            assert server.stop() == 0, server.log
            assert worker.wait(PATIENCE) == 0


def test_a_worker_that_nobody_starts_keeps_no_server_from_ending(tmp_path: Path) -> None:
    make_archive(tmp_path / "store", "steered", STEERED)
    with launched(tmp_path / "store", "steered", settings={"debug": "true"}) as server:
        server.wait_for_line("yourself")
        assert server.stop() == 0, server.log
