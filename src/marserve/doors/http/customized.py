"""A model's description in its service's own words: a job to one of its workers, and the answer as JSON.

Source: TorchServe 0.12, ``GET /models/{model}?customized=true``; the misspelt word is theirs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from time import monotonic

from marserve.batching.job import JobKind
from marserve.doors.http.dialects import AsItIs
from marserve.errors import ModelNotFound, NoWorker, ServeError
from marserve.planes.inference import InferencePlane

_NOTHING = "Failed to get customized model matadata."


class Awaited:
    """Waits for an answer that is no client's; implements ``Reply``."""

    def __init__(self) -> None:
        self.body: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def answer(self, status: int, phrase: bytes, headers: Sequence[bytes], body: bytes | memoryview) -> None:
        """See ``Reply``."""
        if not self.body.done():
            self.body.set_result(bytes(body))

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
        if not self.body.done():
            self.body.set_exception(error)


async def customized(plane: InferencePlane, name: str, version: str | None) -> AsItIs:
    """Return what a version's service says of itself.

    Raises:
        ModelNotFound, VersionNotFound: there is no such version.
        NoWorker: no worker is there to be asked.
        ServeError: the service has nothing to say, or nothing that is JSON.
    """
    reply = Awaited()
    job = plane.job(name, version, JobKind.DESCRIBE, b"\n\n", (), 0, reply, monotonic())
    try:
        plane.start(job)
        said = json.loads(await reply.body)
    except NoWorker as error:
        error.fault = "describe"
        raise
    except ModelNotFound:
        raise
    except asyncio.CancelledError:
        plane.give_up(job)
        raise
    except (ServeError, ValueError) as error:
        raise ServeError(_NOTHING, f"The reason: {error}") from error
    if said is None:
        raise ServeError(_NOTHING, "Its service returned nothing.")
    return AsItIs(said)
