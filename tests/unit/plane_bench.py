"""Both planes over fake workers, for their tests."""

from __future__ import annotations

import shutil

from marserve.archive.manifest import Manifest
from marserve.batching.job import JobKind
from marserve.errors import ModelNotFound
from marserve.models.model import House, OpenedArchive, VersionConfig
from marserve.models.registry import Registry
from marserve.planes.inference import InferencePlane
from marserve.planes.management import ManagementPlane
from marserve.supervisor.crowd import Crowd
from marserve.supervisor.gate import Gate
from marserve.supervisor.lifecycle import RESTARTS
from marserve.supervisor.pool import PoolSettings
from marserve.testing import GOOD, FakeStarter, RecordingObserver, RecordingReply

NATIVE = RESTARTS["native"]


def archive(name="digits", version="1.0", handler="service.py", own_folder="", **config):
    manifest = Manifest(model_name=name, version=version, handler=handler)
    return OpenedArchive(f"{name}.mar", f"/models/{name}", "", manifest, None, config, own_folder=own_folder)


class PlaneBench:
    """A server without doors."""

    def __init__(
        self,
        clock,
        folder,
        *,
        script=GOOD,
        is_open=True,
        unregister_timeout=60.0,
        restart=NATIVE,
        management=None,
        **defaults,
    ):
        self.clock = clock
        self.gate = Gate(folder / "gate.sock")
        self.gate.open()
        self.starter = FakeStarter(script)
        self.observer = RecordingObserver()
        self.registry = Registry()
        house = House(
            self.starter,
            self.gate,
            Crowd(2, 0.0),
            self.observer,
            PoolSettings(arena_bytes=1 << 20, restart=restart),
            {"style": "native"},
            30.0,
        )
        self.management = ManagementPlane(
            self.registry,
            house,
            self.open,
            VersionConfig(**defaults),
            is_open=is_open,
            unregister_timeout=unregister_timeout,
            remove=self.remove,
            **(management or {}),
        )
        self.inference = InferencePlane(self.registry)
        self.inference.startup = None
        self.store = {one.location: one for one in (archive(), archive(version="2.0"), archive("fizbuz"))}

    def stock(self, location, **given):
        self.store[location] = archive(**given)
        return location

    async def open(self, wanted):
        if wanted.location not in self.store:
            raise ModelNotFound(f"Model not found in model store: {wanted.location}")
        return self.store[wanted.location]

    async def remove(self, folder):
        shutil.rmtree(folder)

    def predict(self, body=b"x", name="digits", version=None):
        """Start a job and return its reply."""
        reply = RecordingReply()
        parts = [(b"body", b"", body)]
        now = self.clock.monotonic()
        job = self.inference.job(name, version, JobKind.PREDICT, b"\n\n", parts, len(body), reply, now)
        reply.job = job
        self.inference.start(job)
        return reply

    async def close(self):
        await self.management.close()
        for version in self.registry:
            await version.pool.close()
        self.gate.close()
        assert not self.starter.living
