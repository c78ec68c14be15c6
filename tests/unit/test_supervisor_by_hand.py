"""The Starter that starts nothing: what it says, and what it makes of whoever comes."""

import asyncio
import logging

import psutil
import pytest

from marserve.supervisor import by_hand
from marserve.supervisor.by_hand import ByHand
from marserve.supervisor.process import WORKER, Exit, Launch, Program


class FakeProcess:
    """One of the system's processes."""

    def __init__(self, pid: int) -> None:
        if pid == 404:
            raise psutil.NoSuchProcess(pid)
        self.pid = pid
        self.signals: list[int] = []

    def is_running(self) -> bool:
        return not self.signals

    def status(self) -> str:
        return psutil.STATUS_SLEEPING

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "LOOK", 0.0)
    monkeypatch.setattr(by_hand.psutil, "Process", FakeProcess)
    monkeypatch.setenv("HOME", "/home/me")


def start(program: Program = WORKER) -> tuple[by_hand.Awaited, "asyncio.Future[Exit]"]:
    """Ask for a worker; return it, and what will tell of its end."""

    def prepare(launch: Launch) -> tuple[list[str], dict[str, str]]:
        return (
            ["py thon", "-c", launch.program.code, *launch.program.arguments],
            {"HOME": "/home/me", "MARSERVE_PARENT": "7", "MARSERVE_TOKEN": launch.token, "X": "a b"},
        )

    ended = asyncio.get_running_loop().create_future()
    launch = Launch("m:1.0#9000", "/gate", "secret", {}, program=program)
    return ByHand(prepare).start(launch, lambda process, how: ended.set_result(how)), ended


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (WORKER, "'py thon' -m marserve.worker.main"),
        (Program("run()", ("--ranks", "2")), "'py thon' -c 'run()' --ranks 2"),
    ],
)
def test_it_says_how_to_start_a_worker_and_names_what_a_shell_lacks(program, command, caplog) -> None:
    async def ask() -> int:
        return start(program)[0].pid

    with caplog.at_level(logging.INFO):
        assert asyncio.run(ask()) == 0
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Start the worker m:1.0#9000 yourself (debug=true): MARSERVE_TOKEN=secret X='a b' {command}"
    )


def test_one_that_has_come_is_ended_and_its_end_is_noticed() -> None:
    async def run() -> None:
        process, ended = start()
        process.include([41, 42])
        await asyncio.sleep(0)
        assert (process.pid, ended.done()) == (41, False)
        process.kill(hard=True)
        assert await ended == Exit(None, None)

    asyncio.run(run())


def test_one_that_nobody_has_started_ends_when_it_is_not_wanted_any_more() -> None:
    async def run() -> None:
        process, ended = start()
        process.kill(hard=False)
        process.kill(hard=True)
        assert str(await ended) == "ended"

    asyncio.run(run())


def test_one_that_was_gone_before_it_was_looked_at_has_ended() -> None:
    async def run() -> None:
        process, ended = start()
        process.include([404])
        assert await ended == Exit(None, None)

    asyncio.run(run())
