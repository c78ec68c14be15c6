"""Helper processes: work that takes longer than a tick of the server's loop, done beside it and niced.

A thread would not do: unpacking and hashing beside the loop takes the interpreter lock from it again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

from marserve.errors import ServeError, about, by_kind

#: How much a helper gives way to the server and its workers.
NICENESS = 10


#: Longest line that a helper may write, bytes.
LONGEST_LINE = 2**20

#: Takes each line that a helper writes to its error output.
OnLine = Callable[[str], None]


async def run_helper(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], on_line: OnLine = lambda line: None
) -> dict[str, object]:
    """Run ``python -m module arguments`` and return the JSON object that it prints.

    Args:
        on_line: hears how far it is.

    Raises:
        ServeError: what the helper told as ``{"error": kind, "message": …, "hint": …}``, as the class of that
            kind; or that it ended without a word; or that it could not be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
            limit=LONGEST_LINE,
        )
    except OSError as why:  # no descriptors or no processes are left
        raise ServeError(f"The helper {module} could not be started: {why}.", "Try again later.") from why
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        out, last = await asyncio.gather(process.stdout.read(), _heard(process.stderr, on_line))
        await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    try:
        value = json.loads(out)
    except ValueError:
        last = last or "nothing on its error output"
        raise ServeError(f"The helper {module} ended with code {process.returncode}: {last}") from None
    if not isinstance(value, dict):
        raise ServeError(f"The helper {module} printed no JSON object.")
    if "error" in value:
        error = by_kind().get(str(value["error"]), ServeError)(str(value["message"]), str(value.get("hint") or ""))
        error.fault = str(value.get("fault") or "")
        raise about(error, str(value["model"])) if value.get("model") else error
    return value


async def _heard(stream: asyncio.StreamReader, on_line: OnLine) -> str:
    """Pass every line on; return the last one."""
    last = ""
    while True:
        try:
            raw = await stream.readline()
        except ValueError:  # longer than anybody would read; the rest of what is said still counts
            continue
        if not raw:
            return last
        line = raw.decode("utf-8", "replace").rstrip()
        if line:
            last = line
            on_line(line)


async def remove_folder(folder: str) -> None:
    """Remove a folder and what is in it, as far as that can be done.

    A thread does for this: it spends its time in the system, without the interpreter lock.
    """
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
