"""``marserve status``: whether the server runs, what it answers, and which models it serves."""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from marserve.cli.pidfile import FoundServer, find_server
from marserve.cli.serve import KEYS, NOT_RUNNING, OK
from marserve.cli.tables import print_table
from marserve.config.address import Address, parse_address
from marserve.doors.auth import read_keys

#: Seconds that one question to the server may take.
_PATIENCE = 10.0
_COLUMNS = ("model", "version", "workers", "batch size", "queued")
#: Hosts that mean every network, which one can listen on but not call.
_CALLABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def status(pid_file: Path, as_json: bool) -> int:
    """Print the state of the server that holds a pid file; exit code 0 if it runs, 3 if not."""
    server = find_server(pid_file)
    try:
        if server is None or not server.is_alive():
            print(json.dumps({"running": False}) if as_json else "marserve is not running.")
            return NOT_RUNNING
        _report(server, as_json)
    finally:
        if server is not None:
            server.close()
    return OK


def ping_reasons(pid_file: Path) -> list[str]:
    """Return what a server that has just started says is missing; [] when nothing is, or in an old dialect."""
    server = find_server(pid_file)
    if server is None:
        return []
    try:
        return _reasons(_ask(server, "inference", "/ping"))
    finally:
        server.close()


def _report(server: FoundServer, as_json: bool) -> None:
    ping = _ask(server, "inference", "/ping")
    models = _models(server)
    if as_json:
        addresses = {door: address for doors, address in server.addresses for door in doors.split(",")}
        state = {"running": True, "pid": server.pid, "addresses": addresses, "ping": ping, "models": models}
        print(json.dumps(state, indent=2))
        return
    print(f"marserve is running, pid {server.pid}.")
    for doors, address in server.addresses:
        print(f"{doors}: {address}")
    print(f"ping: {_sentence(ping)}")
    for reason in _reasons(ping):
        print(f"  {reason}")
    if isinstance(models, list):
        print_table(_COLUMNS, [_model_row(model) for model in models])
    else:
        print(f"models: {models}")


def _sentence(answer: object) -> str:
    return str(answer.get("status", answer)) if isinstance(answer, dict) else str(answer)


def _reasons(answer: object) -> list[str]:
    return [str(reason) for reason in answer.get("reasons", [])] if isinstance(answer, dict) else []


def _models(server: FoundServer) -> list[dict[str, Any]] | str:
    """Return the description of each served version, or a sentence that says why there is none."""
    found: list[dict[str, Any]] = []
    page = "0"
    while True:
        listed = _ask(server, "management", f"/models?limit=100&next_page_token={page}")
        if not isinstance(listed, dict):
            return str(listed)
        for model in listed.get("models", []):
            described = _ask(server, "management", f"/models/{quote(model['modelName'], safe='')}/all")
            found += described if isinstance(described, list) else [model]
        page = str(listed.get("nextPageToken") or "")
        if not page or not listed.get("models"):
            return found


def _model_row(model: Mapping[str, Any]) -> Sequence[str]:
    workers = model.get("workers", [])
    ready = sum(worker.get("status") == "READY" for worker in workers)
    return (
        str(model["modelName"]),
        str(model.get("modelVersion", "")),
        f"{ready} of {model.get('minWorkers', len(workers))} ready",
        str(model.get("batchSize", "")),
        str(model.get("jobQueueStatus", {}).get("pendingRequests", "")),
    )


def _ask(server: FoundServer, door: str, path: str) -> object:
    """Return the JSON answer of a door, or a sentence that says why there is none."""
    address = next((address for doors, address in server.addresses if door in doors.split(",")), None)
    if address is None:
        return "the pid file tells no address: the server is still starting, or an old command started it"
    connection = _connect(parse_address(address, 80, 443))
    try:
        connection.request("GET", path, headers=_authorization(server, door))
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer from {address}: {error or type(error).__name__}"
    finally:
        connection.close()


def _authorization(server: FoundServer, door: str) -> dict[str, str]:
    key_file = dict(server.addresses).get(KEYS)
    key = read_keys(Path(key_file)).get(door) if key_file else None
    return {"Authorization": f"Bearer {key}"} if key else {}


def _connect(address: Address) -> http.client.HTTPConnection:
    host = _CALLABLE.get(address.host, address.host)
    if address.scheme == "unix":
        return _UnixConnection(address.path)
    if address.is_tls:
        # Our own server at the address that it wrote down itself; its certificate rarely names the loopback.
        unverified = ssl._create_unverified_context()
        return http.client.HTTPSConnection(host, address.port, timeout=_PATIENCE, context=unverified)
    return http.client.HTTPConnection(host, address.port, timeout=_PATIENCE)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)
