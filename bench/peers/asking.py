"""What goes over the wire for a workload: each peer's form of a body and of an answer, and a single request."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import MeasureError
from bench.peers.table import Peer
from bench.services.workloads import JSON, Workload

#: Seconds until a single answer counts as missing.
PATIENCE = 30.0


@dataclass(frozen=True)
class Envelope:
    """A peer's own form around a JSON body: ``wrap`` a body, ``unwrap`` a parsed answer."""

    wrap: Callable[[bytes], bytes]
    unwrap: Callable[[object], object]


def _tensor(body: bytes) -> bytes:
    tensor = {"name": "body", "shape": [1], "datatype": "BYTES", "data": [body.decode()]}
    return json.dumps({"inputs": [tensor]}).encode()


def _from_tensor(answer: object) -> object:
    return json.loads(answer["outputs"][0]["data"][0])  # type: ignore[index]


ENVELOPES = {
    "": Envelope(lambda body: body, lambda answer: answer),
    "items": Envelope(lambda body: b'{"items": [%b]}' % body, lambda answer: answer[0]),  # type: ignore[index]
    "tensor": Envelope(_tensor, _from_tensor),
}


@dataclass(frozen=True)
class Asked:
    """A request that goes to a port of this machine."""

    port: int
    path: str
    content_type: str
    body: bytes


def asked(peer: Peer, workload: Workload, port: int) -> Asked:
    """Return the request of a workload as ``peer`` wants it."""
    return Asked(port, path_of(peer, workload), workload.content_type, ENVELOPES[peer.envelope].wrap(workload.body()))


def path_of(peer: Peer, workload: Workload) -> str:
    """Return where a peer answers for a workload."""
    if peer.envelope == "tensor":
        return "/v2/models/bench/infer"
    plain = f"/predictions/{workload.archive}"
    return f"{plain}/bytes" if peer.module == "fastapi_app" and workload.content_type != JSON else plain


def check_right(peer: Peer, workload: Workload, status: int, answer: bytes) -> None:
    """Look at one answer.

    Raises:
        MeasureError: it is not the workload's.
    """
    if status == 200:
        try:
            found = answer if workload.echoes else ENVELOPES[peer.envelope].unwrap(json.loads(answer))
        except (ValueError, LookupError, TypeError):
            found = None
        if found is not None and workload.is_right(found):
            return
    raise MeasureError(f"{workload.title} was answered with {status} {answer[:300]!r}.")


def ask(to: Asked) -> tuple[int, bytes]:
    """Send one request; return status and body.

    Raises:
        OSError, HTTPException: there was no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", to.port, timeout=PATIENCE)
    try:
        connection.request("POST", to.path, to.body, {"Content-Type": to.content_type})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
