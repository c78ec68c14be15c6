"""Starts and stops a server process: what ``marserve``, ``torchserve`` and ``mxnet-model-server`` share.

A server in the background is ``python -m marserve.cli.serve`` in a session of its own. It gets its settings as
JSON on standard input, holds the pid file by an inherited descriptor, and says on an inherited pipe, in one line
of JSON, that it is ready or why it will never be.
"""

import argparse
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn, Protocol, TypedDict

from marserve import logs
from marserve.archive.store import find
from marserve.cli.pidfile import FoundServer, PidFile
from marserve.config.settings import Settings
from marserve.errors import ConfigError, ServeError

#: Exit codes of the commands.
OK = 0
FAILED = 1
NOT_RUNNING = 3
INTERRUPTED = 130

#: The server itself, ``module:function``.
RUNNER = "marserve.server:run"
#: Seconds between a second signal, which ends a server at once, and the kill.
_AFTER_SECOND_SIGNAL = 10.0
#: The word among its arguments by which SageMaker's toolkits and `pgrep -f` find the process of an old server.
_KNOWN_AS = {"torchserve": ["org.pytorch.serve.ModelServer"], "mms": ["com.amazonaws.ml.mms.ModelServer"]}
#: What stands in the place of doors where a key file is told beside the addresses.
KEYS = "keys"
#: Lines of a server's log that are shown when it ends without a word.
_LAST_LINES = 15

_log = logging.getLogger("marserve.cli")


class Runner(Protocol):
    """The server."""

    def __call__(self, settings: Settings, *, ready: Callable[[list[str]], None] | None) -> int:
        """Serve until told to stop, and return the exit code.

        ``ready`` is called once, when all doors are open and the start-up models are loaded, with the addresses
        in the order of ``settings.listeners()``, ports filled in.
        """


class Message(TypedDict, total=False):
    """What a server in the background says to the command that started it: one of the two."""

    ready: list[str]
    error: str


def serve(
    settings: Settings,
    pid_file: PidFile,
    ready: Callable[[list[str]], None],
    failed: Callable[[str], None],
    runner: str | None = None,
) -> int:
    """Run the server in this process until it ends; return its exit code.

    Args:
        settings: what the server is told.
        pid_file: held by this process; removed at the end.
        ready: called with the addresses, once they answer.
        failed: called with the reason, if the server cannot start or breaks.
        runner: ``module:function`` of the server; None for ``RUNNER``.
    """
    try:
        _configure_logs(settings)
        return _find_runner(runner or RUNNER)(settings, ready=ready)
    except ServeError as error:
        failed(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        _log.exception("the server cannot go on")
        failed(f"The server cannot go on: {error}.")
    except Exception as error:
        _log.exception("a bug in the server")
        failed(f"The server broke: {type(error).__name__}: {error}. Its log has the traceback.")
    finally:
        pid_file.release()
    return FAILED


def _configure_logs(settings: Settings) -> None:
    if settings.dialect == "native":
        folder = settings.log_location
        if folder is not None and _is_console(folder / logs.FILE_NAME):
            folder = None  # each line would be there twice
        logs.configure(settings.log_level, folder, sys.stderr, settings.log_format)
        return
    server = {"torchserve": "ts"}.get(settings.dialect, settings.dialect)
    places = settings.log_location, settings.metrics_location
    logs.configure_old(server, settings.log_level, *places, sys.stdout, settings.log_format)


def _is_console(path: Path) -> bool:
    """Tell whether standard error goes to a file, as it does in the background."""
    try:
        return os.path.samestat(os.fstat(sys.stderr.fileno()), os.stat(path))
    except OSError:  # there is no such file, or standard error is none
        return False


def _find_runner(place: str) -> Runner:
    module, _, name = place.partition(":")
    runner: Runner = getattr(import_module(module), name)
    return runner


def check_store(settings: Settings) -> None:
    """Raise ConfigError unless the model store is a folder, where one is named, and has what a snapshot had."""
    store = settings.model_store
    if store is not None and not store.is_dir():
        raise ConfigError(f"The model store {store} is no folder.", "Create it, or name another with --model-store.")
    for entry in settings.model_snapshot or ():
        if "://" not in entry.archive:
            try:
                find(entry.archive, store)
            except ServeError as error:
                raise ConfigError(
                    f"Model archive file for model {entry.model}, version {entry.version} not found in model store: "
                    f"{error}",
                    "Put it there, or start without the snapshot (torchserve --ncs).",
                ) from None


# --- in the background ---------------------------------------------------------------------------------


def open_standard_streams() -> None:
    """Open what is closed of standard input, output and error.

    Else the next file or socket takes such a number, and a server that is started then has it as its console.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def launch(
    settings: Settings,
    pid_file: PidFile,
    *,
    console: int | None = None,
    message: int | None = None,
    announcement: str = "",
) -> "subprocess.Popen[bytes]":
    """Start a server process in a session of its own.

    Args:
        settings: what it is told.
        pid_file: gets its number; the process holds the file from now on, as the caller still does.
        console: descriptor that takes its standard output and error; None for the caller's own.
        message: descriptor for its one ``Message``; None if nobody waits for it.
        announcement: a line for its standard output when it is ready; "" for none.
    """
    passed = [pid_file.descriptor] + ([] if message is None else [message])
    process = subprocess.Popen(
        _command(settings, pid_file, message, announcement),
        stdin=subprocess.PIPE,
        stdout=console,
        stderr=console,
        pass_fds=passed,
        start_new_session=True,
    )
    pid_file.record(process.pid)
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as stdin:  # it died already; its message or exit tells why
        stdin.write(settings.to_json().encode())
    return process


def become(settings: Settings, pid_file: PidFile, announcement: str) -> NoReturn:
    """Make this process a server as ``launch`` starts one: same number and console, another command line."""
    with (
        tempfile.TemporaryFile() as told
    ):  # a pipe may be too small: nobody reads it before this process is the server
        told.write(settings.to_json().encode())
        told.seek(0)
        os.dup2(told.fileno(), 0)
    os.set_inheritable(pid_file.descriptor, True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, _command(settings, pid_file, None, announcement))


def _command(settings: Settings, pid_file: PidFile, message: int | None, announcement: str) -> list[str]:
    """Return the command line of a server process."""
    # -P: without it, a marserve or json folder where the command was typed would be imported first.
    command = [sys.executable, "-P", "-m", "marserve.cli.serve", "--runner", RUNNER]
    command += ["--pid-file", str(pid_file.path), "--pid-descriptor", str(pid_file.descriptor)]
    command += ["--message-descriptor", str(-1 if message is None else message), "--announcement", announcement]
    return [*command, *_KNOWN_AS.get(settings.dialect, [])]


def wait_until_ready(message: int, process: "subprocess.Popen[bytes]", log: Path) -> list[str]:
    """Return the addresses of a server that was started with a message pipe.

    Args:
        message: our end of the pipe; its other end is open in the server alone.
        process: the server.
        log: file that it writes its console to.

    Raises:
        ConfigError: the server will not be ready; says why, as far as is known.
    """
    received = b""
    is_terminal = sys.stderr.isatty()
    while not received.endswith(b"\n"):
        if not select.select([message], [], [], 1.0)[0]:
            if is_terminal:
                print(".", end="", file=sys.stderr, flush=True)
            continue
        piece = os.read(message, 65536)
        if not piece:
            break
        received += piece
    if is_terminal:
        print(file=sys.stderr)
    if not received:
        raise ConfigError(_last_words(process.wait(), log))
    said: Message = json.loads(received)
    if "error" in said:
        process.wait()
        raise ConfigError(said["error"], f"Its log is {log}.")
    return said["ready"]


def _last_words(exit_code: int, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    ended = f"by signal {-exit_code}" if exit_code < 0 else f"with exit code {exit_code}"
    return "\n".join([f"The server ended {ended} before it was ready. The end of its log, {log}:", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Be the server process that ``launch`` starts."""
    parser = argparse.ArgumentParser(prog="python -m marserve.cli.serve", description=__doc__.splitlines()[0])
    parser.add_argument("--runner", required=True)
    parser.add_argument("--pid-file", type=Path, required=True)
    parser.add_argument("--pid-descriptor", type=int, required=True)
    parser.add_argument("--message-descriptor", type=int, required=True)
    parser.add_argument("--announcement", required=True)
    parser.add_argument("known_as", nargs="?", help="a word that others look for in the list of processes")
    told = parser.parse_args(argv)
    settings = Settings.from_json(sys.stdin.read())
    _close_stdin()
    pid_file = PidFile(told.pid_file, told.pid_descriptor)
    for descriptor in (told.pid_descriptor, told.message_descriptor):
        if descriptor >= 0:
            # A worker that inherited them would look like the server after the server's death.
            os.set_inheritable(descriptor, False)

    def ready(addresses: list[str]) -> None:
        if told.announcement:
            print(told.announcement, flush=True)
        else:
            pid_file.record(os.getpid(), describe_addresses(settings, addresses))
        _send(told.message_descriptor, {"ready": addresses})

    def failed(reason: str) -> None:
        _log.error("%s", reason)
        _send(told.message_descriptor, {"error": reason})

    return serve(settings, pid_file, ready, failed, told.runner)


def _close_stdin() -> None:
    """Put nothing in the place of standard input, so that no later file gets its number."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _send(descriptor: int, message: Message) -> None:
    if descriptor >= 0:
        with suppress(BrokenPipeError):  # the command that waited was interrupted
            os.write(descriptor, json.dumps(message).encode() + b"\n")


def describe_addresses(settings: Settings, addresses: Sequence[str]) -> list[str]:
    """Return a line for each listener: its doors with commas between, a blank, its address.

    The last line is that of the key file, ``keys`` for the doors, where an address asks for keys.
    """
    listeners = settings.listeners()
    lines = [f"{','.join(doors)} {address}" for (_, doors), address in zip(listeners, addresses, strict=True)]
    return [*lines, f"{KEYS} {settings.key_file.absolute()}"] if settings.has_keys else lines


# --- the end -------------------------------------------------------------------------------------------


def stop(server: FoundServer, timeout: float, tell: Callable[[str], None]) -> bool:
    """End a living server: let it finish its requests, then ask it to end at once, then kill it.

    Args:
        server: a server that is alive.
        timeout: seconds that it may take over its requests.
        tell: called with a sentence at each step beyond the first.

    Returns:
        Whether it ended by itself.
    """
    _signal(server.pid, signal.SIGTERM)
    has_ended = server.wait_for_end(timeout)
    if not has_ended:
        tell(f"It has not ended after {timeout:g} s. Asking it to end at once.")
        _signal(server.pid, signal.SIGTERM)
        has_ended = server.wait_for_end(_AFTER_SECOND_SIGNAL)
    if not has_ended:
        tell(f"It has not ended after another {_AFTER_SECOND_SIGNAL:g} s. Killing it.")
        _signal(server.pid, signal.SIGKILL)
        server.wait_for_end(_AFTER_SECOND_SIGNAL)
    server.remove_file()
    return has_ended


def _signal(pid: int, number: signal.Signals) -> None:
    if pid <= 0:
        raise ConfigError("The pid file of the running server holds no number.", "Try again in a moment.")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended between the look and the signal
    except PermissionError:
        raise ConfigError(f"The server, pid {pid}, belongs to another user.", "Stop it as that user.") from None


if __name__ == "__main__":
    sys.exit(main())
