"""Stands in for what is served, so that doors can be asked without workers, sockets or a running server."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from marserve.archive.manifest import Manifest
from marserve.archive.signature import Signature
from marserve.batching.batcher import BatchPolicy
from marserve.batching.queue import JobQueue
from marserve.doors.auth import Keys
from marserve.doors.http.app import build_app
from marserve.doors.http.dialects import DIALECTS
from marserve.errors import ServeError
from marserve.metrics.collector import Collector
from marserve.models.model import House, OpenedArchive, VersionConfig
from marserve.models.registry import Registry
from marserve.observer import NullObserver
from marserve.planes.inference import InferencePlane
from marserve.planes.management import ManagementPlane
from marserve.planes.resolving import Registration, resolve
from marserve.supervisor.lifecycle import WorkerState, version_state
from marserve.supervisor.pool import PoolSettings

SIGNATURE = {
    "inputs": [{"name": "input.1", "shape": [], "data_type": "int64", "minimum": 0, "maximum": 1023, "example": 14}],
    "outputs": [{"name": "next_number", "shape": [], "data_type": "string"}],
}

#: In place of a body: the client leaves before it has sent one.
GONE = b"gone"


@dataclass
class FakeWorker:
    number: int = 9000
    pid: int = 0
    state: WorkerState = WorkerState.READY
    in_flight_count: int = 0
    started_at: float = 1_700_000_000.0

    @property
    def pids(self) -> list[int]:
        return [self.pid]


class FakePool:
    """Workers that are ready at once, or that cannot load when ``failure_to_come`` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings = PoolSettings()
        self.target = 0
        self.workers: list[FakeWorker] = []
        self.starting_count = 0
        self.restart_count = 0
        self.failure: ServeError | None = None
        self.setback: ServeError | None = None
        self.failure_to_come: ServeError | None = None
        self.last_autopsy = None
        self.is_draining = False

    @property
    def ready_count(self) -> int:
        return sum(worker.state is WorkerState.READY for worker in self.workers)

    @property
    def state(self):
        return version_state(
            self.target, self.ready_count, self.starting_count, self.failure is not None, self.is_draining
        )

    def why_degraded(self) -> str:
        return self.failure.message if self.failure is not None else ""

    def scale(self, target: int) -> None:
        self.target = target
        self.failure = self.failure_to_come
        self.workers = [] if self.failure else [FakeWorker(9000 + number) for number in range(target)]

    async def wait_ready(self, wanted: int) -> None:
        if self.failure is not None:
            raise self.failure

    async def wait_until(self, is_so) -> None:
        assert is_so()

    async def drain(self, timeout: float) -> None:
        self.workers = []

    async def close(self) -> None:
        self.workers = []


class FakeVersion:
    def __init__(self, name: str, version: str, archive: OpenedArchive, config: VersionConfig) -> None:
        self.name = name
        self.version = version
        self.archive = archive
        self.config = config
        self.loaded_at_startup = False
        self.is_restored = False
        self.job_deadline = 120.0
        self.queue = JobQueue(config.queue_size, BatchPolicy(config.batch_size, config.max_batch_delay))
        self.pool = FakePool(f"{name}:{version}")

    def gpus_of(self, number: int) -> tuple[int, ...]:
        return ()

    def scale(self, min_workers: int, max_workers: int) -> None:
        self.config = replace(self.config, min_workers=min_workers, max_workers=max_workers)
        self.pool.scale(min_workers)


class FakeManagement(ManagementPlane):
    """The real plane over versions without processes; ``asked`` keeps what registrations asked for."""

    def __init__(self, registry: Registry, *, is_open: bool = True) -> None:
        house = House(None, None, None, NullObserver(), PoolSettings(), {})  # type: ignore[arg-type]
        super().__init__(registry, house, self._open, VersionConfig(), is_open=is_open, unregister_timeout=5.0)
        self.asked: list[Registration] = []
        self.load_failure: ServeError | None = None
        self.open_failure: BaseException | None = None
        self.version = "1.0"

    async def _open(self, wanted: Registration) -> OpenedArchive:
        if self.open_failure is not None:
            raise self.open_failure
        return archive_of(wanted.location, version=self.version)

    def _add(self, name, wanted, archive, at_startup):
        self.registry.check_free(name, archive.manifest.version)
        self.asked.append(wanted)
        config = resolve(VersionConfig(), archive, wanted)
        made = FakeVersion(name, archive.manifest.version, archive, config)
        made.pool.failure_to_come = self.load_failure
        self.registry.add(made)
        return made


def archive_of(location: str, version: str = "1.0", signature: object = SIGNATURE) -> OpenedArchive:
    manifest = Manifest(
        family="torchserve", model_name=location.partition(".")[0], version=version, handler="service"
    )
    parsed = None if signature is None else Signature.parse(signature)
    return OpenedArchive(location, "/unpacked", "ab12", manifest, parsed)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Served:
    """A registry with planes over it, and one application that serves all doors."""

    dialect: str = "native"
    doors: tuple[str, ...] = ("inference", "management", "metrics")
    is_open: bool = True
    cors: tuple = ()
    keys: Keys | None = None
    is_locked: bool = True
    registry: Registry = field(default_factory=Registry)
    collector: Collector = field(default_factory=Collector)

    def __post_init__(self) -> None:
        self.management = FakeManagement(self.registry, is_open=self.is_open)
        self.inference = InferencePlane(self.registry)
        self.inference.startup = None
        self.app = build_app(
            self.doors,
            inference=self.inference,
            management=self.management,
            collector=self.collector,
            observer=self.collector,
            dialect=DIALECTS[self.dialect],
            cors=self.cors,
            keys=self.keys,
            is_locked=self.keys is not None and self.is_locked,
        )

    def add(self, name: str = "m", version: str = "1.0", workers: int = 1, **archive) -> FakeVersion:
        made = FakeVersion(name, version, archive_of(f"{name}.mar", version, **archive), VersionConfig())
        made.scale(workers, workers)
        self.registry.add(made)
        return made

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        return asyncio.run(self._ask(method, target, body, headers))

    async def _ask(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer | None:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "client": ("192.0.2.7", 4242),
        }
        sent: list[dict] = []

        async def receive():
            if body is GONE:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return None
        start, *rest = sent
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], names, b"".join(part["body"] for part in rest))
