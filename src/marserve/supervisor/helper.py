"""Helper processes: work that takes longer than a tick of the server's loop, done beside it and niced.

A thread would not do: unpacking and hashing beside the loop takes the interpreter lock from it again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence

from marserve.errors import ServeError, about, by_kind

#: How much a helper gives way to the server and its workers.
NICENESS = 10


async def run_helper(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, object]:
    """Run ``python -m module arguments`` and return the JSON object that it prints.

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
        )
    except OSError as why:  # no descriptors or no processes are left
        raise ServeError(f"The helper {module} could not be started: {why}.", "Try again later.") from why
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    try:
        value = json.loads(out)
    except ValueError:
        last = err.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing on its error output"]
        raise ServeError(f"The helper {module} ended with code {process.returncode}: {last[0]}") from None
    if not isinstance(value, dict):
        raise ServeError(f"The helper {module} printed no JSON object.")
    if "error" in value:
        error = by_kind().get(str(value["error"]), ServeError)(str(value["message"]), str(value.get("hint") or ""))
        error.fault = str(value.get("fault") or "")
        raise about(error, str(value["model"])) if value.get("model") else error
    return value
