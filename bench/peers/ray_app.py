"""Ray Serve: one deployment behind its proxy, on a Ray of its own that ends with this program."""

from __future__ import annotations

import signal
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from bench.peers.service import BATCH, IS_JSON, LONGEST_WAIT, PATH, PORT, WORKERS, handle_from_environment


class Answering:
    def __init__(self) -> None:
        self.handle = handle_from_environment()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=LONGEST_WAIT)
    async def together(self, items: list[Any]) -> list[Any]:
        return self.handle(items)

    async def __call__(self, request: Request) -> Any:
        body = await request.json() if IS_JSON else await request.body()
        return await self.together(body) if BATCH > 1 else self.handle([body])[0]


if __name__ == "__main__":
    # Without these it would look for other machines, and send its usage elsewhere.
    ray.init(num_cpus=WORKERS + 1, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT, "access_log": False})
    options = {"num_cpus": 0.5, "runtime_env": {}}
    deployment = serve.deployment(
        Answering, num_replicas=WORKERS, max_ongoing_requests=1000, ray_actor_options=options
    )
    serve.run(deployment.bind(), route_prefix=PATH)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
