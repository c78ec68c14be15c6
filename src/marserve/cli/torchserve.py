"""The ``torchserve`` command, with the flags, texts and exit codes of TorchServe 0.12.

Source: TorchServe's ``ts/arg_parser.py`` and ``ts/model_server.py``.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from marserve.cli.old_servers import Texts, absent, end, fail, is_running, shared_pid_file, start, warn, warn_inert
from marserve.config.log4j import Mapped, read_log4j
from marserve.config.properties import parse
from marserve.doors.http.dialects import TORCHSERVE
from marserve.errors import ServeError

_TEXTS = Texts(
    dialect="torchserve",
    running="TorchServe is already running, please use torchserve --stop to stop TorchServe.",
    orphan="Removing orphan pid file.",
    stopped="TorchServe has stopped.",
    slow="Stopping TorchServe took too long.",
    not_running="TorchServe is not currently running.",
    # "TorchServe already stopped." is what the original has for a server that ends while it is being stopped.
    stopped_before="Removing orphan pid file.\nTorchServe is not currently running.",
)
#: Seconds that ``--stop`` waits, with ``--foreground`` and without. The original does not wait without it, yet
#: the next ``--start`` in a script must find the ports free.
_STOP_TIMEOUTS = {True: 60.0, False: 10.0}
#: Flags that do nothing here, by argument, and why.
_INERT = {
    "cpp_log_config": "this version has no C++ workers",
    "plugins_path": "plugins are Java archives, and there is no Java here",
    "workflow_store": "this version has no workflows",
}
#: A key file of the running server; the original removes it when it is stopped.
_KEY_FILE = Path("key_file.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parser().parse_args(argv)
    if arguments.version:
        print(f"TorchServe Version is {TORCHSERVE.version}")
        return 0
    try:
        if arguments.stop:
            pid_file = shared_pid_file()
            if pid_file.exists():  # else the keys may be those of a server with another folder for temporary files
                _KEY_FILE.unlink(missing_ok=True)
            return end(pid_file, _TEXTS, _STOP_TIMEOUTS[arguments.foreground])
        return _start(arguments)
    except ServeError as error:
        return fail(str(error))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    flags = argparse.ArgumentParser(prog="torchserve", description="TorchServe's command, run by marserve")
    what = flags.add_mutually_exclusive_group()
    what.add_argument("-v", "--version", action="store_true", help="print the version")
    what.add_argument("--start", action="store_true", help="start the server")
    what.add_argument("--stop", action="store_true", help="stop the server")
    flags.add_argument("--ts-config", metavar="FILE", help="a config.properties")
    flags.add_argument("--model-store", metavar="DIR", help="folder of the archives; mandatory")
    flags.add_argument("--workflow-store", metavar="DIR", help="without effect")
    flags.add_argument("--models", nargs="+", metavar="[NAME=]FILE", help="what to load at start, or all")
    flags.add_argument("--log-config", metavar="FILE", help="log4j2 XML: its level and folders count")
    flags.add_argument("--cpp-log-config", metavar="FILE", help="without effect")
    flags.add_argument("--foreground", action="store_true", help="stay attached until the server ends")
    flags.add_argument("--no-config-snapshots", "--ncs", action="store_true", help="read and write no snapshots")
    flags.add_argument("--plugins-path", "--ppath", metavar="JARS", help="without effect")
    # Scripts that parse by ts.arg_parser know these two by other names than their flags'.
    flags.add_argument(
        "--disable-token-auth", "--dt", dest="token_auth", action="store_true", help="ask for no token"
    )
    flags.add_argument(
        "--enable-model-api", dest="model_mode", action="store_true", help="let clients register models"
    )
    return flags


def _start(arguments: argparse.Namespace) -> int:
    if is_running():
        return fail(_TEXTS.running)
    named = os.environ.get("TS_CONFIG_FILE") or arguments.ts_config
    for flag in ("log_config", "cpp_log_config"):
        path = getattr(arguments, flag)
        setattr(arguments, flag, os.path.realpath(path) if path else None)
    problem = (
        absent("--log-config", arguments.log_config, is_folder=False)
        or _temp_problem(os.environ.get("TEMP", ""))
        or absent("--ts-config", named, is_folder=False)
        or _store_problem(arguments.model_store, named)
        or absent("--workflow-store", arguments.workflow_store, is_folder=True)
        or absent("--cpp-log-config", arguments.cpp_log_config, is_folder=False)
    )
    if problem:
        return fail(problem)
    warn_inert(arguments, _INERT)
    logs = Mapped({}, [])
    if arguments.log_config:
        logs = read_log4j(Path(arguments.log_config), os.environ)
        for phrase in logs.ignored:
            warn(f"--log-config: {phrase} has no effect.")
    flags = {
        **logs.settings,
        "model_store": arguments.model_store,
        "load_models": ",".join(arguments.models) if arguments.models else None,
        "enable_model_api": "true" if arguments.model_mode else None,
        "disable_token_authorization": "true" if arguments.token_auth else None,
        "snapshots": "false" if arguments.no_config_snapshots else None,
    }
    return start(_TEXTS, named, flags, arguments.foreground)


def _temp_problem(folder: str) -> str | None:
    """Return what is wrong with the folder for temporary files that the environment names, as the original does."""
    if not folder or os.path.isdir(folder):
        return None
    return f"Invalid temp directory: {folder}, please check TEMP environment variable."


def _store_problem(store: str | None, config: str | None) -> str | None:
    """Return what is wrong with the model store; only a file that was named counts for one, as in the original."""
    if store:
        return absent("--model-store", store, is_folder=True)
    entries = parse(Path(config).read_text(encoding="utf-8", errors="replace"), config) if config else {}
    if "model_store" not in entries:
        return "Missing mandatory parameter --model-store"
    written = entries["model_store"].value
    return None if "$$" in written else absent("--model-store", written, is_folder=True)


if __name__ == "__main__":
    sys.exit(main())
