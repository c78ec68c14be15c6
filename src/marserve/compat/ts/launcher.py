"""Starts and stops a server from a script or a test suite, and registers models at it."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from typing import Any, Iterable, Optional, Sequence

#: -P: without it, a folder ``marserve`` or ``json`` where the script runs would be imported first.
_COMMAND = (sys.executable, "-P", "-m", "marserve.cli.torchserve")
_STARTED = "Model server started"
#: Lines that the queue holds at most; what comes when it is full is only printed.
_LINES = 1000


def start(
    model_store: Optional[str] = None,
    snapshot_file: Optional[str] = None,
    no_config_snapshots: bool = False,
    plugin_folder: Optional[str] = None,
    disable_token: bool = False,
    models: Optional[str] = None,
    enable_model_api: bool = False,
) -> queue.Queue[Optional[str]]:
    """Stop the server that runs, start one, and return when it has started or could not.

    Args:
        model_store: folder of the archives.
        snapshot_file: its ``config.properties``.
        no_config_snapshots, disable_token, enable_model_api: the flags of ``torchserve``.
        plugin_folder: without effect; a warning says so.
        models: what to load at the start.

    Returns:
        The console's further lines, and None when the server has ended. All of them are printed too.
    """
    stop()
    named = {
        "--model-store": model_store,
        "--plugins-path": plugin_folder,
        "--ts-config": snapshot_file,
        "--models": models,
    }
    switches = {
        "--no-config-snapshots": no_config_snapshots,
        "--disable-token-auth": disable_token,
        "--enable-model-api": enable_model_api,
    }
    command = [*_COMMAND, "--start", *(flag for flag, is_on in switches.items() if is_on)]
    for flag, value in named.items():
        command += [flag, value] if value else []
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line.strip(), flush=True)
        if _STARTED in line:
            break
    process.wait()  # the command alone: the server that it has started goes on, and holds the other end of the pipe
    lines: queue.Queue[Optional[str]] = queue.Queue(_LINES)
    # No daemon: a server whose console nobody reads any more would block.
    threading.Thread(target=_pass_on, args=(process.stdout, lines)).start()
    return lines


def _pass_on(console: Any, lines: queue.Queue[Optional[str]]) -> None:
    """Print the lines and put them into the queue as far as it has room; None is always its last."""
    with console:
        for line in console:
            print(line.strip(), flush=True)
            if not lines.full():
                lines.put(line)
    if lines.full():
        lines.get()
    lines.put(None)


def stop(wait: bool = True) -> None:
    """Stop the server.

    Args:
        wait: until it has ended, at most 60 seconds; else at most 10.
    """
    subprocess.run([*_COMMAND, "--stop", *(["--foreground"] if wait else [])], check=False)


def register_model_with_params(params: Iterable[Sequence[str]]) -> Any:
    """Register a model at the management address of this machine, and return the answer as a ``requests.Response``.

    Args:
        params: names and values of the query of ``POST /models``.

    Raises:
        ModuleNotFoundError: requests is not there.
    """
    from .handler_utils.libraries import library

    return library("requests", "requests").post("http://localhost:8081/models", params=params)


def register_model(model_name: str, url: str) -> Any:
    """Register an archive with one worker, and return the answer when that is ready; see above."""
    return register_model_with_params(
        (("model_name", model_name), ("url", url), ("initial_workers", "1"), ("synchronous", "true"))
    )
