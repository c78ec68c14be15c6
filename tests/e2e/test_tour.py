"""The tour of ``make run`` and ``make demo``: it shows everything, stops when told to, and leaves nothing behind."""

import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from live import PATIENCE, ROOT, all_gone, descendants

DOORS = ("inference", "management", "metrics")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(fizbuz_store: Path, tmp_path: Path):
    """Starts tours on ports of the system's choice; whatever a test does, none is left running."""
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str, **addresses: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(ROOT / "scripts" / "tour.py"), "--seconds", "1", "--users", "2"]
        command += ["--work", str(tmp_path / "work"), "--model-store", str(fizbuz_store), *options]
        for door in DOORS:
            command += [f"--{door}-address", addresses.get(door, "http://127.0.0.1:0")]
        tour = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(tour)
        return tour

    yield begin
    for tour in started:
        tour.kill()
        tour.communicate()


def read_until(tour: "subprocess.Popen[str]", text: str) -> str:
    """Return what a tour has printed up to a line with this text; fails when it ends before."""
    assert tour.stdout is not None
    printed = ""
    for line in tour.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(f"The tour ended without {text!r}:\n{printed}")


def test_the_demo_shows_everything_and_ends(start: Start) -> None:
    tour = start("--exit")
    printed, _ = tour.communicate(timeout=PATIENCE)

    assert tour.returncode == 0, printed
    assert '-> {"status":"Healthy"}' in printed
    assert 'fizbuz_package: {"input.1":14}\n  -> {"next_number":"FizBuz"}' in printed
    assert "Workers scaled to 2 for model: fizbuz_package" in printed
    table = re.search(r"requests +failures.*\n *([\d,]+) +(\d+) ", printed)
    assert table is not None, printed
    assert int(table[1].replace(",", "")) > 0
    assert int(table[2]) == 0
    assert "The server has ended with code 0." in printed
    assert "\x1b" not in printed


def test_the_lines_to_try_work_when_they_are_pasted(start: Start) -> None:
    tour = start()
    read_until(tour, "Serving; Ctrl-C stops")
    lines = read_until(tour, "locust --host").splitlines()
    tried = [line for line in lines if line.startswith(("curl ", ".venv/bin/marserve")) or " status " in line]

    answers = [
        subprocess.run(
            shlex.split(line), capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=True
        ).stdout
        for line in tried
    ]

    assert len(tried) == 6
    assert answers[0] == '{"next_number":"FizBuz"}'
    assert all(answers)
    assert "RouteNotFound" not in "".join(answers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_tour_and_all_that_it_started(start: Start, number: signal.Signals) -> None:
    tour = start()
    read_until(tour, "locust --host")
    family = descendants(tour.pid)

    tour.send_signal(number)
    printed, _ = tour.communicate(timeout=PATIENCE)

    assert tour.returncode == 0, printed
    assert "The server has ended with code 0." in printed
    assert len(family) >= 2
    assert all_gone(family)


def test_a_signal_before_the_end_of_the_tour_is_no_success(start: Start) -> None:
    tour = start("--exit")
    read_until(tour, "Waiting until the archives are loaded")

    tour.send_signal(signal.SIGINT)
    printed, _ = tour.communicate(timeout=PATIENCE)

    assert tour.returncode == 130, printed


def test_a_killed_tour_leaves_no_server(start: Start) -> None:
    tour = start()
    read_until(tour, "locust --host")
    family: list[psutil.Process] = descendants(tour.pid)

    tour.kill()

    assert len(family) >= 2
    assert all_gone(family)


def test_a_port_that_is_taken_is_told_with_what_to_do(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        tour = start("--exit", inference=address)
        printed, _ = tour.communicate(timeout=PATIENCE)

    assert tour.returncode == 1
    assert f"inference_address {address} cannot be listened on: address already in use." in printed
    assert "Or take other ports: --inference-address http://127.0.0.1:0" in printed
    assert "Traceback" not in printed


def test_a_store_without_archives_is_told_with_what_to_do(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    tour = start("--exit", "--model-store", str(tmp_path / "empty"))
    printed, _ = tour.communicate(timeout=PATIENCE)

    assert tour.returncode == 1
    assert "build the archives with: make archives" in printed
    assert "Traceback" not in printed
