"""Builds the house from settings, and starts, drains and stops it in a told order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import resource
import shutil
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path

from marserve import __version__
from marserve.archive.cache import writable_root
from marserve.config.settings import Settings
from marserve.config.snapshot_files import FOLDER
from marserve.doors.auth import KeyFile, Keys
from marserve.doors.http.app import build_app
from marserve.doors.http.application import HttpApplication, https_only
from marserve.doors.http.cors import cors_headers, cors_pairs
from marserve.doors.http.dialects import DIALECTS
from marserve.doors.http.inference import InferenceDoor
from marserve.doors.http.lane import Limits
from marserve.doors.http.listener import Listener
from marserve.doors.http.tls import TlsContext
from marserve.errors import ShuttingDown
from marserve.fittings import (
    ArchiveOpener,
    definitions_of,
    gpu_count,
    runtime_folder,
    sagemaker_of,
    tally_of,
    tls_of,
    worker_environment,
)
from marserve.metrics.collector import Collector
from marserve.metrics.command import HostCommand
from marserve.metrics.lines import OnLine, PrintedMetrics
from marserve.metrics.phrases import Phrases
from marserve.metrics.system import HostWatch
from marserve.models.model import House, VersionConfig
from marserve.models.registry import Registry
from marserve.planes.inference import InferencePlane
from marserve.planes.management import ManagementPlane
from marserve.planes.resolving import Precedence
from marserve.planes.snapshots import Snapshots
from marserve.planes.startup import chosen, load, remembered
from marserve.supervisor.by_hand import ByHand
from marserve.supervisor.crowd import Crowd
from marserve.supervisor.gate import Gate
from marserve.supervisor.guard import Guard
from marserve.supervisor.lifecycle import RESTARTS
from marserve.supervisor.pool import PoolSettings
from marserve.supervisor.process import adopt_orphans, end_orphans
from marserve.supervisor.spawning import Spawner
from marserve.wire.memory import keep_freed_memory

log = logging.getLogger("marserve.server")
#: What workers print. They leave out what ``log_level`` leaves out; a traceback of a service is worth a line anyway.
worker_log = logging.getLogger("marserve.output")
worker_log.setLevel(logging.DEBUG)

#: How long a worker polls its socket before it blocks, seconds.
POLL = 0.0002
#: Objects between two collections: a request makes a few dozen, and leaves none behind.
GC_THRESHOLD = 20_000

#: Called with the bound addresses once the start-up is done.
OnReady = Callable[[list[str]], None]


def run(settings: Settings, *, ready: OnReady | None = None) -> int:
    """Serve until a signal ends it; return the exit code.

    The first SIGTERM, SIGINT or SIGHUP drains: nothing new is accepted, what was accepted is answered. A second
    SIGTERM or SIGINT ends everything at once. SIGHUP stays ignored where it is, as under nohup.

    Raises:
        ServeError: it could not start; says what to change.
    """
    _raise_file_limit()
    keep_freed_memory()
    adopt_orphans()
    try:
        return _run_loop(Server(settings).serve(ready))
    finally:
        left = end_orphans()
        if left:
            log.info("%d processes that workers had left behind were ended.", left)


def _run_loop(work: Coroutine[object, object, int]) -> int:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(work)
    return int(uvloop.run(work))


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server:
    """One server: what it is made of, and the order in which that starts and stops."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dialect = DIALECTS[settings.dialect]
        self._signals = 0

    def _build(self, runtime: Path) -> None:
        settings = self._settings
        self._cache, why = writable_root(settings.cache_folder, runtime / "archives")
        if why:
            log.warning(
                "cache_folder %s cannot be used (%s): archives and their environments are made anew at every start.",
                settings.cache_folder,
                why,
            )
        self._registry = Registry()
        self._gate = Gate(runtime / "gate.sock")
        self._guard = Guard(runtime)
        self.inference = InferencePlane(self._registry)
        definitions = definitions_of(settings)
        self._tally = tally_of(settings, definitions, self.inference.id_prefix)
        self._observer = Collector(settings.access_log, self._tally)
        environment = worker_environment(settings)
        spawner = Spawner(self._on_worker_line(), runtime, self._guard)
        house = House(
            starter=spawner,
            gate=self._gate,
            crowd=Crowd(os.cpu_count() or 1, POLL),
            observer=Phrases(self._observer) if settings.dialect == "torchserve" else self._observer,
            pool=PoolSettings(
                arena_bytes=settings.arena_size,
                environment=environment,
                pinning=tuple(settings.cpu_launcher_args.split()) if settings.cpu_launcher_enable else None,
                restart=RESTARTS[settings.dialect],
            ),
            load={
                "style": settings.dialect,
                "decode_input": settings.decode_input_request,
                "limit_max_image_pixels": settings.limit_max_image_pixels,
                "allowed_input_urls": list(settings.allowed_input_urls),
                "envelope": "" if settings.service_envelope == "none" else settings.service_envelope,
                "max_response_bytes": settings.max_response_size,
                "id_prefix": self.inference.id_prefix,
                "server_version": self._dialect.version,
                "log_level": settings.log_level,
                "metrics": [] if definitions is None else definitions.rows_of_models(),
            },
            job_deadline=math.inf if settings.debug else settings.job_timeout or math.inf,
            by_hand=ByHand(spawner.prepare) if settings.debug else None,
        )
        if settings.dialect == "mms":  # which reads some of them in minutes
            log.info(
                "A worker may spend %g s on a batch and %g s on loading; unregistering waits for %g s.",
                settings.default_response_timeout,
                settings.default_startup_timeout,
                settings.unregister_model_timeout,
            )
        gpus = gpu_count() if settings.number_of_gpu < 0 else min(gpu_count(), settings.number_of_gpu)
        startup_workers = settings.workers_at_start(gpus or os.cpu_count() or 1)
        self._sagemaker = sagemaker_of(settings, startup_workers)
        defaults = VersionConfig(
            min_workers=settings.default_workers_per_model,
            max_workers=settings.default_workers_per_model,
            batch_size=settings.batch_size,
            max_batch_delay=settings.max_batch_delay,
            response_timeout=settings.default_response_timeout,
            startup_timeout=settings.default_startup_timeout,
            queue_size=settings.job_queue_size,
            thread_count=settings.worker_threads,
            gpu_ids=tuple(range(gpus)),
            handler=settings.default_service_handler,
            worker_start="fork" if settings.preload_model else settings.worker_start,
        )
        self.management = ManagementPlane(
            self._registry,
            house,
            # Old handlers write into their model's folder: each model has its own, which ends with it.
            ArchiveOpener(settings, self._cache, runtime / "models"),
            defaults,
            is_open=settings.enable_model_api,
            unregister_timeout=settings.unregister_model_timeout,
            first_worker=settings.initial_worker_port,
            precedence=Precedence(
                archive_sets_workers=settings.dialect == "torchserve",
                registration_sets_workers=settings.dialect == "torchserve",
                archive_sets_timeouts=settings.dialect == "torchserve" and not settings.prefer_timeout_parameters,
                takes_odd_numbers=settings.dialect != "native",
                has_routes=settings.dialect == "native",
            ),
            names_after_file=settings.dialect != "native",
            takes_bare=settings.dialect == "torchserve",
            has_versions=self._dialect.has_versions,
            startup_workers=startup_workers,
            parameters=settings.models,
            first_distributed=settings.initial_distribution_port,
        )
        self._snapshots: Snapshots | None = None
        if settings.snapshots and settings.log_location is not None:
            self._snapshots = Snapshots(settings.log_location / FOLDER, settings.written, self._registry)
            self.management.on_change = self._snapshots.changed
        self._key_file = KeyFile(settings.key_file.absolute())
        self._keys: Keys | None = None
        if settings.has_keys:
            self._keys = Keys(settings.token_expiration_min, self._key_file.write)
        self._listeners: list[Listener] = []

    async def serve(self, ready: OnReady | None) -> int:
        """Start, serve, stop; return the exit code."""
        runtime = runtime_folder(self._settings.dialect)
        try:
            log.info("marserve %s, dialect %s", __version__, self._dialect.name)
            self._build(runtime)
            stop = asyncio.Event()
            self._handle_signals(stop)
            self._observer.start(asyncio.get_running_loop())
            watching = self._watch_host()
            self._gate.open()
            try:
                addresses = await self._open_doors()
                self._publish_keys()
                loading = asyncio.ensure_future(self._load_startup(addresses, ready))
                await stop.wait()
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
            finally:
                if watching is not None:
                    watching.cancel()
                code = await self._stop()
            return code
        finally:
            shutil.rmtree(runtime, ignore_errors=True)

    def _watch_host(self) -> asyncio.Task[None] | None:
        """Begin to read the host for its metrics, where an old server's are wanted."""
        if self._tally is None or self._settings.disable_system_metrics:
            return None
        command, interval = self._settings.system_metrics_cmd, self._settings.metric_time_interval
        if command:
            watching = HostCommand(command, self._tally.host_told, interval).run()
        else:
            watching = HostWatch(self._tally.host_read, interval).run()
        return asyncio.get_running_loop().create_task(watching)

    def _on_worker_line(self) -> OnLine:
        """Return what takes the lines that workers print; TorchServe looks for metrics among them."""
        if self._settings.dialect != "torchserve":
            return _worker_line
        return PrintedMetrics(self._observer.metrics_reported, _worker_line)

    def _handle_signals(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def on_signal(number: signal.Signals) -> None:
            if number == signal.SIGHUP and self._signals:
                return  # of a terminal that goes away both the kernel and the shell tell
            self._signals += 1
            if self._signals == 1:
                log.info("%s: draining. A second signal ends everything at once.", number.name)
                stop.set()
                return
            log.warning("%s again: everything ends now.", number.name)
            for version in self._registry:
                version.pool.kill_all(ShuttingDown("The server was ended at once."))
            end_orphans()
            self._key_file.remove()
            os._exit(128 + number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, on_signal, number)

    async def _open_doors(self) -> list[str]:
        settings = self._settings
        limits = Limits(
            header_bytes=settings.max_header_size,
            body_bytes=settings.max_request_size,
            header_timeout=settings.header_timeout,
            body_timeout=settings.body_timeout,
            keep_alive_timeout=settings.keep_alive_timeout,
            write_timeout=settings.write_timeout,
        )
        cors = (settings.cors_allowed_origin, settings.cors_allowed_methods, settings.cors_allowed_headers)
        addresses = []
        certificate = self._certificate()
        for address, doors in settings.listeners():
            is_locked = settings.is_locked(address)
            asgi = build_app(
                self._served_at(doors),
                inference=self.inference,
                management=self.management,
                collector=self._observer,
                observer=self._observer,
                dialect=self._dialect,
                cors=cors_pairs(*cors),
                keys=self._keys,
                is_locked=is_locked,
                has_open_inference=settings.ts_open_inference_protocol,
                sagemaker=self._sagemaker,
            )
            door = None
            if "inference" in doors:
                standing = self._dialect.standing_headers + cors_headers(*cors)
                door = InferenceDoor(
                    self.inference,
                    self._dialect,
                    self._observer,
                    settings.max_request_size,
                    standing,
                    self._keys if is_locked else None,
                    settings.server_timing,
                )
            application = HttpApplication(asgi, door, self._dialect, self._observer)
            listener = Listener(application, limits, name=doors[0])
            addresses.append(await listener.open(address, certificate if address.is_tls else None))
            self._listeners.append(listener)
            log.info("%s at %s", " and ".join(doors), addresses[-1])
        return addresses

    def _served_at(self, doors: tuple[str, ...]) -> tuple[str, ...]:
        """Return the doors behind an address: in TorchServe one that all APIs share has the metrics too."""
        is_shared = self._dialect.name == "torchserve" and {"inference", "management"} <= {*doors}
        has_more = is_shared and self._settings.enable_metrics_api and "metrics" not in doors
        return (*doors, "metrics") if has_more else doors

    def _certificate(self) -> TlsContext | None:
        """Return what the https addresses share; None when there are none."""
        hosts = [address.host for address, _ in self._settings.listeners() if address.is_tls]
        if not hosts:
            return None
        context = tls_of(self._settings, hosts)
        context.plain_answer = https_only(self._dialect)
        return context

    def _publish_keys(self) -> None:
        """Write the key file: once the doors are open, so that a start that fails harms no other server's file."""
        if self._keys is not None:
            self._keys.publish()
            log.info("Requests need a key. The keys are in %s.", self._key_file.path)

    async def _load_startup(self, addresses: list[str], ready: OnReady | None) -> None:
        """Load the models of the start-up, and say that the server is ready."""
        settings = self._settings
        if settings.model_snapshot is None:
            wanted = chosen(settings.load_models, settings.model_store)
        else:
            wanted = remembered(settings.model_snapshot)
        unloaded = await load(wanted, self.management, self.inference)
        if self._snapshots is not None:
            self._snapshots.unloaded = unloaded
            await self._snapshots.begin()
        self.inference.startup = None
        # What has been loaded by now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        if ready is not None:
            ready(addresses)

    async def _stop(self) -> int:
        """Drain: doors first, so that nothing new comes in; then pools; then everything else."""
        self.inference.is_draining = True
        timeout = self._settings.drain_timeout
        cut = await asyncio.gather(*(listener.drain(timeout) for listener in self._listeners))
        if self._snapshots is not None:
            await self._snapshots.end()
        await self.management.close()
        await asyncio.gather(*(version.pool.close() for version in self._registry))
        for listener in self._listeners:
            listener.close()
        self._key_file.remove()
        self._gate.close()
        self._guard.close()
        self._observer.stop()
        if sum(cut):
            log.warning("%d requests were not answered within %g s of draining.", sum(cut), timeout)
        log.info("Stopped.")
        return 0


def _worker_line(name: str, line: str) -> None:
    worker_log.info("[%s] %s", name, line, extra={"worker": name})
