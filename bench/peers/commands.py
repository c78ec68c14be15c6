"""The command that runs each kind of peer with a workload, as a user would, and the environment that all get."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.peers.asking import path_of
from bench.peers.install import place_of
from bench.peers.service import LONGEST_WAIT
from bench.peers.table import Peer
from bench.services.build import ROOT, Built
from bench.services.workloads import JSON, Workload

#: Bytes that a body may have, with some room for an envelope.
LARGEST_BODY = 32_000_000


@dataclass(frozen=True)
class Mode:
    """How a peer is run: worker processes, and the largest batch."""

    workers: int = 1
    batch: int = 1


@dataclass(frozen=True)
class Launch:
    """All that a launcher needs; ``port`` is that of predictions, ``management`` and ``metrics`` others."""

    peer: Peer
    workload: Workload
    mode: Mode
    built: Built
    folder: Path
    port: int
    management: int
    metrics: int

    @property
    def program(self) -> Path:
        """The folder of the peer's own commands."""
        place = place_of(self.peer)
        return (place / "bin") if place else Path(sys.executable).parent


def environment_of(launch: Launch) -> dict[str, str]:
    """Return what every contender finds in its environment: one thread a library, its service, its own folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MARSERVE_", "TS_", "MMS_"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    (launch.folder / "temporary").mkdir()
    own = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "TMPDIR": str(launch.folder / "temporary"),
        "TEMP": str(launch.folder / "temporary"),
        "PATH": f"{launch.program}{os.pathsep}{os.environ['PATH']}",
        "BENCH_FOLDER": str(launch.built.folders / launch.workload.archive),
        "BENCH_PORT": str(launch.port),
        "BENCH_PATH": path_of(launch.peer, launch.workload).removesuffix("/bytes"),
        "BENCH_WORKERS": str(launch.mode.workers),
        "BENCH_BATCH": str(launch.mode.batch),
        "BENCH_JSON": str(int(launch.workload.content_type == JSON)),
        "BENCH_ANSWER": json.dumps(launch.workload.expected),
    }
    return kept | threads | own


Command = tuple[list[str], dict[str, str]]
_OF_BENCH = {"PYTHONPATH": str(ROOT)}


def _marserve(launch: Launch) -> Command:
    name, mode = launch.workload.archive, launch.mode
    settings = {
        "inference_address": f"http://127.0.0.1:{launch.port}",
        "management_address": f"http://127.0.0.1:{launch.management}",
        "metrics_address": f"http://127.0.0.1:{launch.metrics}",
        "cache_folder": str(launch.folder / "cache"),
        "default_workers_per_model": str(mode.workers),
        "batch_size": str(mode.batch),
        "job_queue_size": "2000",
        "max_request_size": str(LARGEST_BODY),
        "max_response_size": str(LARGEST_BODY),
    }
    command = [str(launch.program / "marserve"), "start", "--foreground", "--model-store", str(launch.built.store)]
    command += ["--models", f"{name}={name}.mar", "--pid-file", str(launch.folder / "pid")]
    command += ["--config", str(ROOT / "bench" / "marserve.properties")]
    return [*command, *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))], {}


def _old_properties(launch: Launch) -> Path:
    """Write what both old servers read."""
    name, mode = launch.workload.archive, launch.mode
    model = {"defaultVersion": True, "marName": f"{name}.mar", "minWorkers": mode.workers, "maxWorkers": 4}
    model |= {"batchSize": mode.batch, "maxBatchDelay": old_wait(mode), "responseTimeout": 120}
    rows = {
        "inference_address": f"http://127.0.0.1:{launch.port}",
        "management_address": f"http://127.0.0.1:{launch.management}",
        "metrics_address": f"http://127.0.0.1:{launch.metrics}",
        "model_store": launch.built.store,
        "job_queue_size": 2000,
        "max_request_size": LARGEST_BODY,
        "max_response_size": LARGEST_BODY,
    }
    if launch.peer.launcher == "torchserve":
        rows |= {"load_models": f"{name}={name}.mar", "models": json.dumps({name: {"1.0": model}})}
    path = launch.folder / "old.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in rows.items()))
    return path


def old_wait(mode: Mode) -> int:
    """Return how long a batch waits, milliseconds: as the other peers, not the 100 that are their default."""
    return round(LONGEST_WAIT * 1000) if mode.batch > 1 else 1


def _torchserve(launch: Launch) -> Command:
    command = [str(launch.program / "torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth"]
    command += ["--ts-config", str(_old_properties(launch)), "--model-store", str(launch.built.store)]
    return command, {"PYTHONPATH": ""}


def _mms(launch: Launch) -> Command:
    command = [str(launch.program / "multi-model-server"), "--start", "--foreground"]
    command += ["--mms-config", str(_old_properties(launch)), "--model-store", str(launch.built.store)]
    return command, {"PYTHONPATH": ""}


def program(launch: Launch) -> Command:
    """Return the command of a Python program of ours."""
    # mosec takes its address from its own variables.
    told = {"MOSEC_ADDRESS": "127.0.0.1", "MOSEC_PORT": str(launch.port), "MOSEC_LOG_LEVEL": "warning"}
    told |= {"MOSEC_MAX_REQUEST_SIZE": str(LARGEST_BODY), "MOSEC_TIMEOUT": "30000", "RAY_USAGE_STATS_ENABLED": "0"}
    return [str(launch.program / "python"), "-m", f"bench.peers.{launch.peer.module}"], _OF_BENCH | told


def _uvicorn(launch: Launch) -> Command:
    command = [str(launch.program / "python"), "-m", "uvicorn", f"bench.peers.{launch.peer.module}:app"]
    command += ["--port", str(launch.port), "--workers", str(launch.mode.workers), "--no-access-log"]
    return [*command, "--loop", "uvloop", "--http", "httptools", "--log-level", "warning"], _OF_BENCH


def _gunicorn(launch: Launch) -> Command:
    # Threads keep connections open, which its plain workers do not; 8 a process are enough for a service on one core.
    command = [str(launch.program / "gunicorn"), f"bench.peers.{launch.peer.module}:app", "--threads", "8"]
    command += ["--bind", f"127.0.0.1:{launch.port}", "--workers", str(launch.mode.workers)]
    return [*command, "--keep-alive", "60", "--log-level", "warning"], _OF_BENCH


def _bentoml(launch: Launch) -> Command:
    command = [str(launch.program / "bentoml"), "serve", f"bench.peers.{launch.peer.module}:Answering"]
    command += ["--port", str(launch.port), "--host", "127.0.0.1"]
    return command, _OF_BENCH | {"BENTOML_DO_NOT_TRACK": "1", "BENTOML_HOME": str(launch.folder / "bentoml")}


LAUNCHERS: dict[str, Callable[[Launch], Command]] = {
    "marserve": _marserve,
    "torchserve": _torchserve,
    "mms": _mms,
    "program": program,
    "uvicorn": _uvicorn,
    "gunicorn": _gunicorn,
    "bentoml": _bentoml,
}
