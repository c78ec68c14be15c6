"""Keys and certificates with real servers: started by the old command and by ours, asked, renewed, stopped."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from live import PATIENCE, launched, make_archive, serving
from services import VERSIONED

FAILED = {
    "code": 400,
    "type": "InvalidKeyException",
    "message": "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A model store with one model, that tells its version."""
    made = tmp_path / "store"
    make_archive(made, "told", VERSIONED.format(version="1.0"))
    return made


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def bearer(key_file: Path, kind: str) -> dict[str, str]:
    """Return the header with a key of the key file as it is now."""
    return {"Authorization": f"Bearer {json.loads(key_file.read_text())[kind]['key']}"}


class OldServer:
    """A server that an old command has put into the background, and the command itself.

    Attributes:
        addresses: base URLs of the inference, management and metrics doors.
    """

    def __init__(
        self, folder: Path, store: Path, settings: str, flags: tuple[str, ...], addresses: list[str], program: str
    ) -> None:
        self.addresses = addresses
        doors = zip(("inference", "management", "metrics"), addresses, strict=True)
        lines = [f"{door}_address={address}" for door, address in doors]
        (folder / "config.properties").write_text("\n".join([*lines, "default_workers_per_model=1", settings]))
        (folder / "temp").mkdir()
        self._folder = folder
        self._program = str(Path(sys.executable).with_name(program))
        self._environment = {**os.environ, "TMPDIR": str(folder / "temp"), "XDG_CACHE_HOME": str(folder / "cache")}
        # Its output is the server's too, so it ends when the server does.
        self._process = subprocess.Popen(
            [self._program, "--start", "--model-store", str(store), "--models", "told=told", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=self._environment,
            text=True,
        )
        assert self._process.stdout is not None
        seen = []
        for line in self._process.stdout:
            seen.append(line)
            if "Model server started." in line:
                return
        self._wait()
        raise AssertionError("".join(seen))

    def _wait(self) -> None:
        self._process.communicate(timeout=PATIENCE)

    def stop(self) -> str:
        """Stop it by its command; return what that prints."""
        done = subprocess.run(
            [self._program, "--stop"],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self._wait()
        return done.stdout


@contextmanager
def old_server(
    folder: Path,
    store: Path,
    settings: str = "",
    *flags: str,
    addresses: list[str] | None = None,
    program: str = "torchserve",
) -> Iterator[OldServer]:
    """Run a server of an old command, with an own temporary folder, for the length of a block."""
    addresses = addresses or [f"http://127.0.0.1:{port}" for port in free_ports(3)]
    server = OldServer(folder, store, settings, flags, addresses, program)
    try:
        yield server
    finally:
        server.stop()


def test_torchserve_asks_for_the_keys_of_its_file(tmp_path: Path, store: Path) -> None:
    key_file = tmp_path / "key_file.json"
    with old_server(tmp_path, store) as server, httpx.Client(timeout=PATIENCE) as client:
        inference, management, metrics = server.addresses
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        members = json.loads(key_file.read_text())
        assert list(members) == ["management", "inference", "API"]
        assert list(members["API"]) == ["key"]
        left = datetime.fromisoformat(members["inference"]["expiration time"]) - datetime.now(UTC)
        assert 3000 < left.total_seconds() < 3600

        predict = f"{inference}/predictions/told"
        assert client.get(f"{inference}/ping").json() == FAILED
        assert client.post(predict, content=b"x" * 300_000).json() == FAILED
        assert client.post(predict, json={}, headers=bearer(key_file, "management")).json() == FAILED
        assert client.get(f"{management}/models", headers=bearer(key_file, "inference")).json() == FAILED
        assert client.post(predict, json={}, headers=bearer(key_file, "inference")).json()["version"] == "1.0"
        assert client.get(f"{inference}/ping", headers=bearer(key_file, "inference")).json() == {"status": "Healthy"}
        assert client.get(f"{management}/models", headers=bearer(key_file, "management")).status_code == 200
        opened = (client.options(f"{inference}/"), client.get(f"{management}/api-description"))
        assert [answer.status_code for answer in (*opened, client.get(f"{metrics}/metrics"))] == [200] * 3

        old = bearer(key_file, "inference")
        renewed = client.get(f"{management}/token?type=inference", headers=bearer(key_file, "API"))
        assert (renewed.status_code, renewed.content) == (200, b"\n")
        assert client.post(predict, json={}, headers=old).json() == FAILED
        assert client.post(predict, json={}, headers=bearer(key_file, "inference")).json()["version"] == "1.0"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600

        assert "TorchServe has stopped." in server.stop()
    assert not key_file.exists()


def test_keys_of_torchserve_expire(tmp_path: Path, store: Path) -> None:
    key_file = tmp_path / "key_file.json"
    with old_server(tmp_path, store, "token_expiration_min=0.0001") as server:
        asked = httpx.get(f"{server.addresses[0]}/ping", headers=bearer(key_file, "inference"))
        assert asked.json() == FAILED


def test_a_flag_switches_the_tokens_of_torchserve_off(tmp_path: Path, store: Path) -> None:
    with old_server(tmp_path, store, "", "--disable-token-auth") as server:
        inference, management, _ = server.addresses
        assert httpx.post(f"{inference}/predictions/told", json={}, timeout=PATIENCE).json()["version"] == "1.0"
        assert httpx.get(f"{management}/token?type=inference").status_code == 404
        assert not (tmp_path / "key_file.json").exists()


def test_one_port_for_all_doors_takes_each_doors_own_key(tmp_path: Path, store: Path) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with old_server(tmp_path, store, addresses=[address] * 3), httpx.Client(timeout=PATIENCE) as client:
        inference = bearer(tmp_path / "key_file.json", "inference")
        management = bearer(tmp_path / "key_file.json", "management")
        predict = f"{address}/predictions/told"
        assert client.post(predict, json={}, headers=inference).json()["version"] == "1.0"
        assert client.get(f"{address}/models", headers=management).status_code == 200
        assert client.post(predict, json={}, headers=management).json() == FAILED
        assert client.get(f"{address}/models", headers=inference).json() == FAILED
        assert client.get(f"{address}/metrics").status_code == 200


def test_natively_the_key_file_is_told_and_keys_are_asked_for(tmp_path: Path, store: Path) -> None:
    program = str(Path(sys.executable).with_name("marserve"))
    folder = tmp_path / "keys"
    folder.mkdir()
    pid_file = ["--pid-file", str(tmp_path / "server.pid")]
    values = {
        "inference_address": "http://0.0.0.0:0",
        "management_address": "http://127.0.0.1:0",
        "metrics_address": "http://127.0.0.1:0",
        "cache_folder": tmp_path / "cache",
        "key_file": "keys/mine.json",
    }
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    command = [program, "start", "--model-store", str(store), "--models", "told", *sets, *pid_file]
    started = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    try:
        assert started.returncode == 0, started.stderr
        addresses = dict(line.split(": ", 1) for line in started.stdout.splitlines() if ": " in line)
        key_file = Path(addresses["keys"])
        assert key_file == folder / "mine.json"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        predict = addresses["inference"].replace("0.0.0.0", "127.0.0.1") + "/predictions/told"
        refused = httpx.post(predict, json={})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert httpx.post(predict, json={}, headers=bearer(key_file, "management")).status_code == 403
        assert (
            httpx.post(predict, json={}, headers=bearer(key_file, "inference"), timeout=PATIENCE).json()["version"]
            == "1.0"
        )
        # The management address is this machine's alone, so nobody is asked there; but renewing takes its key.
        assert httpx.get(addresses["management"] + "/models").status_code == 200
        assert httpx.post(addresses["management"] + "/token?type=inference").status_code == 401
        shown = subprocess.run([program, "status", *pid_file], capture_output=True, text=True, timeout=PATIENCE)
        assert "ping: Healthy" in shown.stdout
        assert f"keys: {key_file}" in shown.stdout
    finally:
        subprocess.run([program, "stop", *pid_file], capture_output=True, timeout=PATIENCE, check=True)
    assert not key_file.exists()


def test_status_carries_the_keys(tmp_path: Path, store: Path) -> None:
    settings = {"token_authorization": "on", "key_file": tmp_path / "keys"}
    with serving(store, "told", settings=settings) as server:
        assert server.manage("GET", "/models").status_code == 401
        pid_file = next(word for word in server.process.args if str(word).endswith("server.pid"))  # type: ignore[union-attr]
        command = [str(Path(sys.executable).with_name("marserve")), "status", "--json", "--pid-file", str(pid_file)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert [model["modelName"] for model in json.loads(shown.stdout)["models"]] == ["told"]


def test_a_key_file_that_cannot_be_written_stops_the_start(tmp_path: Path, store: Path) -> None:
    settings = {"token_authorization": "on", "key_file": tmp_path / "missing" / "keys"}
    with launched(store, settings=settings) as server:
        server.wait_for_line(r"missing/keys cannot be written: no such file or directory\. Set key_file to")
        assert server.wait() == 1


# --- certificates --------------------------------------------------------------------------------------


def test_tls_with_a_keystore(tmp_path: Path, store: Path) -> None:
    certificate, key, keystore = (tmp_path / name for name in ("certificate.pem", "key.pem", "store.p12"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    command = ["openssl", "pkcs12", "-export", "-inkey", str(key), "-in", str(certificate), "-out", str(keystore)]
    subprocess.run([*command, "-passout", "pass:secret"], check=True, capture_output=True)
    settings = {"inference_address": "https://127.0.0.1:0", "keystore": keystore, "keystore_pass": "secret"}
    with serving(store, "told", settings=settings) as server:
        trust = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(verify=trust, timeout=PATIENCE) as client:
            assert client.post(server.inference + "/predictions/told", json={}).json()["version"] == "1.0"


def test_the_old_commands_make_a_certificate_of_their_own(tmp_path: Path, store: Path) -> None:
    ports = free_ports(3)
    addresses = [f"https://127.0.0.1:{ports[0]}", *(f"http://127.0.0.1:{port}" for port in ports[1:])]
    with old_server(tmp_path, store, addresses=addresses, program="multi-model-server"):
        own = ssl.get_server_certificate(("127.0.0.1", ports[0]))
        trust = ssl.create_default_context(cadata=own)
        with httpx.Client(verify=trust, timeout=PATIENCE) as client:
            answer = client.post(f"{addresses[0]}/predictions/told", json={})
            assert answer.json()["version"] == "1.0"
