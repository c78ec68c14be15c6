"""The ``multi-model-server`` and ``mxnet-model-server`` commands, with the flags, texts and exit codes of MMS 1.1.

Source: Multi Model Server's ``mms/arg_parser.py`` and ``mms/model_server.py``.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from marserve import config
from marserve.cli.old_servers import Texts, absent, end, fail, is_running, shared_pid_file, start, warn
from marserve.config.log4j import Mapped, read_log4j
from marserve.errors import ServeError

_TEXTS = Texts(
    dialect="mms",
    running="Model server is already running, please use multi-model-server --stop to stop MMS.",
    orphan="Removing orphan pid file.",
    stopped="Model server stopped.",
    slow="Stopping the model server took too long.",
    not_running="Model server is not currently running.",
    stopped_before="Model server already stopped.",
)
_STOP_TIMEOUT = 60.0
#: What ``--mms-config sagemaker`` names.
_SAGEMAKER = Path(config.__file__).with_name("sagemaker.properties")
#: An item of ``--models`` that is not looked for in the store.
_WEB = re.compile(r"(.+=)?https?://.+", re.IGNORECASE)
#: Flags of release 0.4, which 1.x refuses, and what to use in their place.
_OLDER_FLAGS = {
    "--service": "name the handler when the archive is made: model-archiver --handler",
    "--gen-api": "take the OpenAPI description from the server: OPTIONS / on the inference address",
    "--port": "set inference_address=http://host:port in the file that --mms-config names",
    "--host": "set inference_address=http://host:port in the file that --mms-config names",
    "--gpu": "hide the other devices with CUDA_VISIBLE_DEVICES",
    "--log-file": "set log_location=FOLDER in the file that --mms-config names",
    "--log-rotation-time": "let logrotate move the file in log_location",
    "--log-level": "set log_level in the file that --mms-config names",
    "--metrics-write-to": "set enable_metrics_api=true in the file that --mms-config names",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    if os.path.basename(sys.argv[0]) == "mxnet-model-server":
        print("Warning: Calling MMS with mxnet-model-server. Please move to multi-model-server.")
    arguments, unknown = parser().parse_known_args(argv)
    if unknown:
        return _refuse(unknown)
    try:
        if arguments.stop:
            return end(shared_pid_file(), _TEXTS, _STOP_TIMEOUT)
        return _start(arguments)
    except ServeError as error:
        return fail(str(error))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    # Abbreviations off: --log-file of release 0.4 must not be taken for a part of another flag.
    found = argparse.ArgumentParser(
        prog="multi-model-server",
        description="Multi Model Server's command, run by marserve",
        allow_abbrev=False,
    )
    what = found.add_mutually_exclusive_group()
    what.add_argument("--start", action="store_true", help="start the server; the default")
    what.add_argument("--stop", action="store_true", help="stop the server")
    found.add_argument("--mms-config", metavar="FILE", help="a config.properties")
    found.add_argument("--model-store", metavar="DIR", help="folder of the archives")
    found.add_argument("--models", nargs="+", metavar="[NAME=]FILE", help="what to load at start, or ALL")
    found.add_argument("--log-config", metavar="FILE", help="log4j2 XML: its level and folders count")
    found.add_argument("--foreground", action="store_true", help="stay attached until the server ends")
    return found


def _refuse(unknown: Sequence[str]) -> int:
    for item in unknown:
        flag = item.partition("=")[0]
        advice = f" It is of release 0.4; now {_OLDER_FLAGS[flag]}." if flag in _OLDER_FLAGS else ""
        print(f"multi-model-server: error: unrecognized argument: {item}.{advice}", file=sys.stderr)
    return 2


def _start(arguments: argparse.Namespace) -> int:
    if is_running():
        return fail(_TEXTS.running)
    named = os.environ.get("MMS_CONFIG_FILE") or arguments.mms_config
    if named == "sagemaker":
        named = str(_SAGEMAKER)
    temporary, log_config = (
        os.environ.get("TEMP", ""),
        arguments.log_config and os.path.realpath(arguments.log_config),
    )
    problem = (
        absent("--mms-config", named, is_folder=False)
        or absent("--log-config", log_config, is_folder=False)
        or absent("--model-store", arguments.model_store, is_folder=True)
    )
    if temporary and not os.path.isdir(temporary):
        problem = problem or f"Invalid temp directory: {temporary}, please check TEMP environment variable."
    items = [item for argument in arguments.models or [] for item in argument.split(",")]
    # As in the original, a store in the file does not count here.
    if not problem and not arguments.model_store and not all(item == "ALL" or _WEB.match(item) for item in items):
        problem = "--model-store is required to load model locally."
    if problem:
        return fail(problem)
    logs = read_log4j(Path(log_config), os.environ, "mms") if log_config else Mapped({}, [])
    for phrase in logs.ignored:
        warn(f"--log-config: {phrase} has no effect.")
    flags = {**logs.settings, "model_store": arguments.model_store, "load_models": ",".join(items) or None}
    return start(_TEXTS, named, flags, arguments.foreground)


if __name__ == "__main__":
    sys.exit(main())
