"""The floor below all: httptools on uvloop, which answers every request with the same bytes and has no service."""

from __future__ import annotations

import asyncio
import os

import httptools
import uvloop

from bench.peers.service import PORT

BODY = os.environ["BENCH_ANSWER"].encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Null(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]
        self.feed = httptools.HttpRequestParser(self).feed_data

    def data_received(self, data: bytes) -> None:
        self.feed(data)

    def on_message_complete(self) -> None:
        self.write(ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Null, "127.0.0.1", PORT, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
