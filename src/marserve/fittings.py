"""What the server is fitted with, made from its settings: where archives come from, TLS, counters, environments."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import tempfile
import uuid
from functools import partial
from pathlib import Path

from marserve.archive.manifest import Manifest
from marserve.archive.signature import Signature
from marserve.config.settings import Settings
from marserve.doors.http.certificates import keystore_pem, self_signed_pem
from marserve.doors.http.sagemaker import SageMaker
from marserve.doors.http.tls import TlsContext, tls_context, tls_context_of
from marserve.metrics.definitions import SHIPPED, Definitions, read_definitions
from marserve.metrics.simpleclient import java_double
from marserve.metrics.tally import Tally, mms_number
from marserve.models.model import OpenedArchive
from marserve.planes.resolving import Registration
from marserve.supervisor.helper import remove_folder, run_helper

log = logging.getLogger("marserve.server")

#: Longest path of a unix socket, bytes: what macOS allows; Linux allows four more.
LONGEST_SOCKET_PATH = 103


class ArchiveOpener:
    """Opens what a registration names: fetches, checks and unpacks it in a helper process.

    Args:
        cache: root of the shared cache.
        own: where the old dialects' registrations get folders of their own.
    """

    def __init__(self, settings: Settings, cache: Path, own: Path) -> None:
        self._settings = settings
        self._cache = cache
        self._own = own

    async def __call__(self, wanted: Registration) -> OpenedArchive:
        """Return the archive, opened.

        Raises:
            ServeError: it cannot be; nothing is left of it.
        """
        settings, location = self._settings, wanted.location
        arguments = ["--root", str(self._cache), "--location", location]
        own = self._own / uuid.uuid4().hex if settings.dialect != "native" else None
        if own is not None:
            arguments += ["--own", str(own)]
        if settings.model_store is not None:
            arguments += ["--store", str(settings.model_store.resolve())]
        for pattern in settings.allowed_urls:
            arguments += ["--allowed-url", pattern]
        if settings.dialect == "torchserve":
            arguments.append("--lenient")
        if settings.dialect == "mms":
            arguments.append("--replace")  # Multi Model Server downloads again what its store has already
            arguments += ["--mms", "--runtime", wanted.runtime or ""]
        arguments += ["--environments", str(self._cache / "environments")]
        if settings.install_py_dep_per_model:
            arguments.append("--install")
        if settings.install_python:
            arguments.append("--download-python")
        if wanted.is_signed and _is_web(location):
            arguments.append("--sign")
        elif wanted.is_signed:
            log.warning("%s: s3_sse_kms has no effect: it is not downloaded.", location)
        try:
            found = await run_helper("marserve.archive.cache", arguments, dict(os.environ), partial(log.info, "%s"))
        except BaseException:
            if own is not None:  # the helper may have been killed over it
                await remove_folder(str(own))
            raise
        warnings = found.get("warnings")
        for warning in warnings if isinstance(warnings, list) else ():
            log.warning("%s: %s", location, warning)
        signature = found.get("signature")
        config = found.get("config")
        return OpenedArchive(
            location=location,
            folder=str(found["path"]),
            digest=str(found.get("sha256") or ""),
            manifest=Manifest.parse(found["manifest"]),
            signature=Signature.parse(signature) if signature else None,
            config=config if isinstance(config, dict) else {},
            python=str(found.get("python") or ""),
            is_alone=bool(found.get("is_alone")),
            # TorchServe's users register a URL again and again; in its store nothing outlives its model.
            download=str(found["source"]) if settings.dialect == "torchserve" and _is_web(location) else "",
            own_folder=str(own) if found["path"] == str(own) else "",
        )


def _is_web(location: str) -> bool:
    return location.lower().startswith(("http://", "https://"))


def tls_of(settings: Settings, hosts: list[str]) -> TlsContext:
    """Return the TLS of the https addresses; ``hosts`` are theirs."""
    if settings.keystore is not None:
        pem = keystore_pem(settings.keystore, settings.keystore_pass)
        return tls_context_of(pem, f"keystore {settings.keystore}")
    if settings.certificate_file is None and settings.dialect != "native":
        return tls_context_of(self_signed_pem(hosts), "A self-signed certificate")
    return tls_context(str(settings.certificate_file or ""), str(settings.private_key_file or ""))


def runtime_folder(dialect: str) -> Path:
    """Make the folder of the gate's socket; near the root where the usual place is too long for a socket's path.

    The old servers unpack below TEMP, whatever TMPDIR says.
    """
    named = os.path.abspath(os.environ.get("TEMP") or os.devnull)
    chosen = named if dialect != "native" and os.path.isdir(named) else None
    folder = Path(tempfile.mkdtemp(prefix="marserve-", dir=chosen))
    if len(bytes(folder)) + len("/gate.sock") > LONGEST_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="marserve-", dir="/tmp"))
    return folder


def definitions_of(settings: Settings) -> Definitions | None:
    """Return the metrics that an old server's dialect defines; None in the native one.

    Raises:
        ConfigError: they cannot be read.
    """
    if settings.dialect == "native":
        return None
    return read_definitions(settings.metrics_config or SHIPPED[settings.dialect])


def tally_of(settings: Settings, definitions: Definitions | None, id_prefix: str) -> Tally | None:
    """Return what counts as an old server did; None where nothing is defined."""
    if definitions is None:
        return None
    is_mms = settings.dialect == "mms"
    return Tally(
        definitions,
        settings.metrics_mode,
        takes_all=settings.model_metrics_auto_detect or is_mms,
        host=socket.gethostname(),
        id_prefix=id_prefix,
        number=mms_number if is_mms else java_double,
        replaces_ours=not is_mms,
    )


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the workers: the server's, less what is hidden, with threads kept in bounds."""
    hidden = re.compile(settings.blacklist_env_vars) if settings.blacklist_env_vars else None
    environment = {name: value for name, value in os.environ.items() if not (hidden and hidden.fullmatch(name))}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Without it onnxruntime 1.31 starts a thread for its telemetry, and keeps a database in the home folder.
    environment.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # What TorchServe tells its workers in this way; handlers look for it.
    switches = {
        "TS_DECODE_INPUT_REQUEST": settings.decode_input_request,
        "TS_IPEX_ENABLE": settings.ipex_enable,
        "TS_IPEX_GPU_ENABLE": settings.ipex_gpu_enable,
        "MMS_DECODE_INPUT_REQUEST": settings.decode_input_request,
    }
    # Multi Model Server's way around a fault of MXNet: its tuning takes longer than most models.
    environment.setdefault("MXNET_USE_OPERATOR_TUNING", "0")
    return {**environment, **{name: str(is_on).lower() for name, is_on in switches.items()}}


def sagemaker_of(settings: Settings, worker_count: int) -> SageMaker | None:
    """Return what SageMaker is told, None where it does not ask."""
    if not settings.sagemaker_endpoints:
        return None
    is_multi_model = os.environ.get("SAGEMAKER_MULTI_MODE", "false").lower() != "false"
    return SageMaker(worker_count, settings.max_request_size, settings.default_service_handler, is_multi_model)


def gpu_count() -> int:
    """Return how many NVIDIA GPUs there are, as the driver lists them; ``CUDA_VISIBLE_DEVICES`` narrows it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    return 0
