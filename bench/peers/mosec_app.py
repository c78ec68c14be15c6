"""mosec: a front in Rust, and workers that are told the service as a class."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from bench.peers.service import BATCH, IS_JSON, LONGEST_WAIT, PATH, WORKERS, handle_from_environment


class Answering(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.handle = handle_from_environment()

    def deserialize(self, data: bytes) -> Any:
        return super().deserialize(data) if IS_JSON else data

    def serialize(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else super().serialize(data)

    def forward(self, data: Any) -> Any:
        # With a largest batch of 1 it hands over the request itself.
        return self.handle(data) if BATCH > 1 else self.handle([data])[0]


if __name__ == "__main__":
    server = Server()
    wait = round(LONGEST_WAIT * 1000) if BATCH > 1 else 0
    server.append_worker(Answering, num=WORKERS, max_batch_size=BATCH, max_wait_time=wait, route=PATH)
    server.run()
