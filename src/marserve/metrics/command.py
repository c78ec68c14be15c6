"""The host's metrics as a command of the user's tells them, in place of what we read.

Source: TorchServe 0.12, ``system_metrics_cmd``: its Python runs the words of the command in the folder of its
packages; what it prints until an empty line is metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from marserve.metrics.lines import MetricLine, parse_line

log = logging.getLogger("marserve.metrics")

#: Shortest time that a run may take, seconds; it may take as long as there is between two.
PATIENCE = 5.0
#: Where ``ts/metrics/metric_collector.py`` lies, the only command that names no place of its own.
FOLDER = Path(__file__).parents[1] / "compat"


class HostCommand:
    """Runs the command time after time. What goes wrong is told once.

    Args:
        command: words with blanks between, for Python: a script or ``-m`` and a module, and arguments.
        told: called in the loop with the metrics of each run.
        interval: seconds between two runs.
    """

    def __init__(self, command: str, told: Callable[[list[MetricLine]], None], interval: float) -> None:
        self._command = command
        self._told = told
        self._interval = interval
        self._is_warned = False

    async def run(self) -> None:
        """Run it until cancelled, at once for the first time."""
        while True:
            self._told(self._lines(await self._output()))
            await asyncio.sleep(self._interval)

    async def _output(self) -> str:
        """Return what one run prints, "" where it fails."""
        path = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH", "")]))
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command.split(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=FOLDER,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        except OSError as error:
            self._warn(f"cannot be started: {error}")
            return ""
        try:
            async with asyncio.timeout(max(self._interval, PATIENCE)):
                printed, said = await process.communicate()
        except TimeoutError:
            self._warn(f"has not ended after {max(self._interval, PATIENCE):g} s")
            return ""
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._warn(f"ended with exit code {process.returncode}: {last}")
        return printed.decode("utf-8", "replace")

    def _lines(self, printed: str) -> list[MetricLine]:
        metrics = []
        for line in printed.splitlines():
            if not line:
                break
            metric = parse_line(line)
            if metric is None:
                self._warn(f"prints what is no metric: {line}")
            else:
                metrics.append(metric)
        return metrics

    def _warn(self, what: str) -> None:
        if not self._is_warned:
            self._is_warned = True
            log.warning("The system_metrics_cmd %s %s. This is told once.", self._command, what)
