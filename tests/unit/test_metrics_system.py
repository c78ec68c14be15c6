"""What is read of the host."""

import asyncio
import subprocess

import pytest

from marserve.metrics import system
from marserve.metrics.system import HostValue, HostWatch, gpu_values

NAMES = [
    "CPUUtilization",
    "MemoryUsed",
    "MemoryAvailable",
    "MemoryUtilization",
    "DiskUsage",
    "DiskUtilization",
    "DiskAvailable",
]


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processors are busy for one second of four between two looks."""
    spent = iter([(10.0, 100.0), (11.0, 104.0), (13.0, 108.0)])
    monkeypatch.setattr(system, "_cpu_seconds", lambda: next(spent))
    monkeypatch.setattr(system.time, "sleep", lambda _: None)
    monkeypatch.setattr(system.shutil, "which", lambda _: None)


def test_seven_values_of_the_host() -> None:
    watch = HostWatch(lambda _: None, 60.0)

    first, second = watch.read(), watch.read()

    assert [value.name for value in first] == NAMES
    assert first[0].value == 25.0
    assert second[0].value == 50.0
    assert all(value.value >= 0.0 and not value.device for value in first)


def test_gpus_are_read_where_there_is_the_drivers_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 0, stdout="0, 12, 1024, 4096\n1, 0, 0, 4096\n")
    monkeypatch.setattr(system.shutil, "which", lambda _: "/bin/nvidia-smi")
    monkeypatch.setattr(system.subprocess, "run", lambda *_, **__: done)

    values = HostWatch(lambda _: None, 60.0).read()[7:]

    assert values[:3] == [
        HostValue("GPUMemoryUtilization", 25.0, "0"),
        HostValue("GPUMemoryUsed", 1024.0, "0"),
        HostValue("GPUUtilization", 12.0, "0"),
    ]
    assert {value.device for value in values[3:]} == {"1"}


def test_a_tool_that_fails_is_told_of_once_and_asked_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 5.0)

    monkeypatch.setattr(system.shutil, "which", lambda _: "/bin/nvidia-smi")
    monkeypatch.setattr(system.subprocess, "run", fail)
    watch = HostWatch(lambda _: None, 60.0)

    assert len(watch.read()) == len(watch.read()) == 7
    assert len(caplog.records) == 1


def test_a_gpu_that_does_not_tell_has_no_values() -> None:
    assert gpu_values("0, [N/A], 1, 2") == []


def test_a_line_that_says_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no line of four"):
        gpu_values("No devices were found")


def test_it_tells_at_once_and_goes_on() -> None:
    async def run() -> list[list[HostValue]]:
        heard: list[list[HostValue]] = []
        second = asyncio.Event()

        def told(values: list[HostValue]) -> None:
            heard.append(values)
            if len(heard) == 2:
                second.set()

        task = asyncio.create_task(HostWatch(told, 0.001).run())
        await second.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return heard

    assert len(asyncio.run(run())) >= 2
