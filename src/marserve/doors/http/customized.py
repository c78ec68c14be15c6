"""A model's description in its service's own words: a job to one of its workers, and the answer as JSON.

Source: TorchServe 0.12, ``GET /models/{model}?customized=true``. What is no JSON object counts there as an empty
one; status and headers are the service's choice, errors those of a prediction. The misspelt word is theirs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from marserve.batching.job import JobKind
from marserve.errors import NoWorker, ServeError
from marserve.planes.inference import InferencePlane

_NOTHING = "Failed to get customized model matadata."


class Said(NamedTuple):
    """What a service says of itself, with the status and the flat headers (name, value, …) that it wants."""

    metadata: dict[str, object]
    status: int
    headers: Sequence[bytes]


class Awaited:
    """Waits for an answer that is no client's; implements ``Reply``."""

    def __init__(self) -> None:
        self.said: asyncio.Future[Said] = asyncio.get_running_loop().create_future()

    def answer(self, status: int, phrase: bytes, headers: Sequence[bytes], body: bytes | memoryview) -> None:
        """See ``Reply``."""
        if not self.said.done():
            self.said.set_result(Said(_object(bytes(body)), status, headers))

    def start(self, status: int, phrase: bytes, headers: Sequence[bytes]) -> None:
        """See ``Reply``; a description comes whole."""
        self.fail(ServeError(_NOTHING, "The service sends its description in pieces."))

    def chunk(self, data: bytes) -> bool:
        """See ``Reply``."""
        return True

    def end(self) -> None:
        """See ``Reply``."""

    def fail(self, error: ServeError) -> None:
        """See ``Reply``."""
        if not self.said.done():
            self.said.set_exception(error)


async def customized(plane: InferencePlane, name: str, version: str | None) -> Said:
    """Return what a version's service says of itself.

    Raises:
        ModelNotFound, VersionNotFound: there is no such version.
        NoWorker: no worker is there to be asked.
        ServeError: as for a prediction.
    """
    reply = Awaited()
    job = plane.job(name, version, JobKind.DESCRIBE, b"\n\n", (), 0, reply, monotonic())
    try:
        plane.start(job)
        return await reply.said
    except NoWorker as error:
        error.fault = "describe"
        raise
    except asyncio.CancelledError:
        plane.give_up(job)
        raise


def _object(body: bytes) -> dict[str, object]:
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {}
