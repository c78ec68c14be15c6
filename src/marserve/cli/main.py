"""The ``marserve`` command."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from marserve import __version__, logs
from marserve.cli import archive, export, serve
from marserve.cli.pidfile import PidFile, find_server
from marserve.cli.settings import print_settings
from marserve.cli.status import ping_reasons, status
from marserve.config.loading import CONFIG_FILE_VARIABLE, Loaded, load_settings
from marserve.config.setting import DIALECTS
from marserve.config.settings import Settings
from marserve.errors import ConfigError, ServeError

#: Seconds that ``marserve stop`` waits for requests to be finished: a little over the default drain_timeout.
_STOP_TIMEOUT = 130.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except ServeError as error:
        print_error(str(error))
        return serve.FAILED
    except KeyboardInterrupt:
        return serve.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has had enough: `marserve settings | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return serve.FAILED


def print_error(reason: str) -> None:
    """Write why nothing came of it to standard error."""
    print(f"marserve: {reason}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marserve", description="Serve models from .mar archives.")
    parser.add_argument("--version", action="version", version=f"marserve {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_start(commands.add_parser("start", help="start the server"))
    _add_stop(commands.add_parser("stop", help="stop the server"))
    _add_status(commands.add_parser("status", help="show whether the server runs, and its models"))
    _add_settings(commands.add_parser("settings", help="list the settings, or show those in effect"))
    packing = commands.add_parser("archive", help="make, check and list archives")
    archive.add_commands(packing.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    export.add_command(commands.add_parser("export", help="write a torch model in another form, and check it"))
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def _version(arguments: argparse.Namespace) -> int:
    print(f"marserve {__version__}")
    return serve.OK


# --- start ---------------------------------------------------------------------------------------------


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-store", metavar="DIR", help="folder of the archives")
    parser.add_argument(
        "--models", nargs="+", metavar="[NAME=]FILE", help="what to load at start; all for the whole store"
    )
    parser.add_argument("--foreground", action="store_true", help="stay attached until the server ends")
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument("--disable-token-auth", action="store_true", help="ask nobody for a key")
    _add_sources(parser)
    _add_pid_file(parser)
    parser.set_defaults(run=_start)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="a config.properties")
    parser.add_argument(
        "--dialect", choices=DIALECTS, default="native", help="whose settings, texts and defaults to follow"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be given several times"
    )


def _add_pid_file(parser: argparse.ArgumentParser) -> None:
    default = _default_pid_file()
    parser.add_argument("--pid-file", type=Path, default=default, metavar="FILE", help=f"default: {default}")


def _default_pid_file() -> Path:
    return Path(tempfile.gettempdir(), f"marserve-{os.getuid()}.pid")


def _load(arguments: argparse.Namespace, flags: Mapping[str, str | None]) -> Loaded:
    """Return the settings of a command; its warnings are printed."""
    overrides = {key: value for key, value in flags.items() if value is not None}
    for item in arguments.set:
        key, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"--set {item} holds no =.", "Write --set key=value.")
        overrides[key] = value
    named = os.environ.get(CONFIG_FILE_VARIABLE)
    config = arguments.config or (Path(named) if named else None)
    loaded = load_settings(config, overrides, arguments.dialect, os.environ)
    for warning in loaded.warnings:
        print(f"marserve: warning: {warning}", file=sys.stderr)
    return loaded


def _start(arguments: argparse.Namespace) -> int:
    serve.open_standard_streams()
    models = ",".join(arguments.models) if arguments.models else None
    flags = {
        "model_store": arguments.model_store,
        "load_models": models,
        "log_level": arguments.log_level,
        "disable_token_authorization": "true" if arguments.disable_token_auth else None,
    }
    settings = _load(arguments, flags).settings
    serve.check_store(settings)
    if arguments.foreground:
        return _start_here(settings, PidFile.claim(arguments.pid_file))
    log = arguments.pid_file.with_suffix(".log")
    if settings.log_location is not None:
        log = settings.log_location / logs.FILE_NAME
    console = _open_log(log)
    return _start_in_background(settings, PidFile.claim(arguments.pid_file), log, console)


def _start_here(settings: Settings, pid_file: PidFile) -> int:
    def ready(addresses: list[str]) -> None:
        lines = serve.describe_addresses(settings, addresses)
        pid_file.record(os.getpid(), lines)
        _print_ready(lines)

    return serve.serve(settings, pid_file, ready, print_error)


def _open_log(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(
            f"The log {path} cannot be written: {error.strerror}.", "Set log_location to another folder."
        ) from None


def _start_in_background(settings: Settings, pid_file: PidFile, log: Path, console: int) -> int:
    receiving, sending = os.pipe()
    process = serve.launch(settings, pid_file, console=console, message=sending)
    os.close(sending)
    os.close(console)
    try:
        addresses = serve.wait_until_ready(receiving, process, log)
    except BaseException:  # also Ctrl-C: a server that nobody waits for any more is not left half started
        process.terminate()
        process.wait()
        pid_file.release()
        raise
    pid_file.hand_over()
    _print_ready(serve.describe_addresses(settings, addresses))
    for reason in ping_reasons(pid_file.path):
        print(f"marserve: warning: {reason}", file=sys.stderr)
    which = "" if pid_file.path == _default_pid_file() else f" --pid-file {pid_file.path}"
    print(f"pid {process.pid}, log {log}; `marserve stop{which}` ends it.")
    return serve.OK


def _print_ready(lines: Sequence[str]) -> None:
    print("marserve is ready.")
    for line in lines:
        doors, _, address = line.partition(" ")
        print(f"{doors}: {address}", flush=True)


# --- stop, status, settings ----------------------------------------------------------------------------


def _add_stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=_STOP_TIMEOUT,
        metavar="SECONDS",
        help=f"how long it may finish its requests, default {_STOP_TIMEOUT:g}",
    )
    _add_pid_file(parser)
    parser.set_defaults(run=_stop)


def _stop(arguments: argparse.Namespace) -> int:
    server = find_server(arguments.pid_file)
    if server is None or not server.is_alive():
        print("marserve is not running.")
        return serve.OK
    ended = serve.stop(server, arguments.timeout, lambda sentence: print(sentence, file=sys.stderr, flush=True))
    server.close()
    print("marserve has stopped." if ended else "marserve was killed; requests that it had may be lost.")
    return serve.OK if ended else serve.FAILED


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    _add_pid_file(parser)
    parser.set_defaults(run=lambda arguments: status(arguments.pid_file, arguments.json))


def _add_settings(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", const="json", dest="form", help="for programs")
    form.add_argument("--markdown", action="store_const", const="markdown", dest="form", help="the docs page")
    _add_sources(parser)
    parser.set_defaults(run=_settings, form="table")


def _settings(arguments: argparse.Namespace) -> int:
    in_effect = arguments.config is not None or arguments.set
    print_settings(arguments.form, arguments.dialect, _load(arguments, {}) if in_effect else None)
    return serve.OK


if __name__ == "__main__":
    sys.exit(main())
