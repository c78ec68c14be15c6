"""The command that tells the host's metrics: what it is asked, what counts of what it prints, and how it fails."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from marserve.metrics import command as commands
from marserve.metrics.command import FOLDER, HostCommand
from marserve.metrics.lines import MetricLine

LINE = "CPUUtilization.Percent:42.5|#Level:Host|#hostname:h,1"
METRIC = MetricLine("CPUUtilization", "Percent", 42.5, {"Level": "Host"}, "", "h", "")


class Program:
    """Stands for a process."""

    pid = 4242

    def __init__(self, printed: str, code: int = 0, *, hangs: bool = False) -> None:
        self.printed, self.code, self.hangs = printed, code, hangs
        self.returncode: int | None = None

    async def communicate(self) -> tuple[bytes, bytes]:
        if self.hangs:
            await asyncio.Event().wait()
        self.returncode = self.code
        return self.printed.encode(), b"Traceback:\nit broke\n"

    async def wait(self) -> int:
        self.returncode = -9
        return -9


def told(monkeypatch: pytest.MonkeyPatch, *programs: Program) -> tuple[list[list[MetricLine]], SimpleNamespace]:
    """Run the command once a program; return what each told, what it was started with, and who was killed."""
    seen = SimpleNamespace(words=[], folder=None, killed=[])
    started = iter(programs)

    async def start(*words: str, cwd: object, **_: object) -> Program:
        seen.words, seen.folder = list(words), cwd
        return next(started)

    monkeypatch.setattr(commands.asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(commands.os, "killpg", lambda pid, _: seen.killed.append(pid))

    async def run() -> list[list[MetricLine]]:
        heard: list[list[MetricLine]] = []
        done = asyncio.Event()

        def hear(metrics: list[MetricLine]) -> None:
            heard.append(metrics)
            if len(heard) == len(programs):
                done.set()

        task = asyncio.create_task(HostCommand(" a.py  --b c", hear, 0.001).run())
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return heard

    return asyncio.run(run()), seen


def test_the_words_are_pythons_and_no_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, seen = told(monkeypatch, Program(LINE))

    assert heard == [[METRIC]]
    assert seen.words == [sys.executable, "a.py", "--b", "c"]
    assert seen.folder == FOLDER
    assert (FOLDER / "ts/metrics/metric_collector.py").is_file()


def test_what_follows_an_empty_line_does_not_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard, _ = told(monkeypatch, Program(f"{LINE}\n\n{LINE}\n4242:1024\n"))

    assert heard == [[METRIC]]
    assert not caplog.records


def test_what_goes_wrong_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    heard, _ = told(monkeypatch, Program(f"no metric\n{LINE}"), Program(LINE, 1), Program("", 1))

    assert heard == [[METRIC], [METRIC], []]
    (record,) = caplog.records
    assert "prints what is no metric: no metric" in record.getMessage()


def test_the_end_of_a_failure_is_its_last_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told(monkeypatch, Program("", 3))

    assert "ended with exit code 3: it broke" in caplog.text


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 0.01)

    heard, seen = told(monkeypatch, Program("", hangs=True), Program(LINE))

    assert (heard, seen.killed) == ([[], [METRIC]], [4242])
    assert "has not ended after" in caplog.text
