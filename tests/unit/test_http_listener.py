"""The listener's book-keeping: which connections there are, how they are swept, drained and cut; without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from http_fakes import LIMITS, FakeTransport, RecordingApplication, get

from marserve.config.address import Address
from marserve.doors.http.connection import Connection, Limits
from marserve.doors.http.listener import Listener
from marserve.doors.http.tls import tls_context
from marserve.errors import ConfigError

TLS = Path(__file__).parent.parent / "contract" / "tls"


class House:
    """A listener and the transports of its connections."""

    def __init__(self) -> None:
        self.application = RecordingApplication()
        self.application.fast.answers_at_once = False
        self.listener = Listener(self.application, LIMITS, name="inference")

    def connect(self) -> tuple[Connection, FakeTransport]:
        connection, transport = self.listener._connect(), FakeTransport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        return connection, transport


def play(scenario: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(House())

    asyncio.run(run())


def test_connections_and_requests_are_counted() -> None:
    async def scenario(house: House) -> None:
        first, _ = house.connect()
        second, _ = house.connect()
        first.data_received(get() + get())
        assert (house.listener.connection_count, house.listener.exchange_count) == (2, 2)

        second.connection_lost(None)
        house.application.fast.accepted[0].respond(200, b"OK", b"", b"")

        assert (house.listener.connection_count, house.listener.exchange_count) == (1, 1)

    play(scenario)


def test_drain_returns_when_all_has_been_answered() -> None:
    async def scenario(house: House) -> None:
        idle, idle_transport = house.connect()
        busy, busy_transport = house.connect()
        busy.data_received(get())

        draining = asyncio.ensure_future(house.listener.drain(1000))
        await asyncio.sleep(0)
        assert idle_transport.is_closed
        idle.connection_lost(None)
        late, late_transport = house.connect()  # the system had accepted it before
        assert late_transport.is_closed
        late.connection_lost(None)
        house.application.fast.accepted[0].respond(200, b"OK", b"", b"")
        assert b"connection: close" in busy_transport.out
        busy.connection_lost(None)

        assert await draining == 0
        assert house.listener.connection_count == 0

    play(scenario)


def test_drain_cuts_what_is_not_answered_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(house: House) -> None:
        connection, transport = house.connect()
        connection.data_received(get() + get())

        assert await house.listener.drain(0) == 2

        assert transport.is_aborted

    play(scenario)
    assert "inference: 2 requests were not answered in time." in caplog.text


def test_drain_without_connections_returns_at_once() -> None:
    async def scenario(house: House) -> None:
        assert await house.listener.drain(1000) == 0
        house.listener.close()

    play(scenario)


def test_the_sweep_reaches_every_connection() -> None:
    async def scenario(house: House) -> None:
        transports = [house.connect()[1] for _ in range(3)]
        for connection in house.listener._connections:
            connection._since -= LIMITS.keep_alive_timeout + 1

        house.listener._sweep()
        house.listener.close()

        assert all(transport.is_closed for transport in transports)

    play(scenario)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_and_its_certificate_must_fit(scheme: str) -> None:
    async def scenario(house: House) -> None:
        certificate = Path(__file__).parent.parent / "contract" / "tls" / "test-certificate.pem"
        context = (
            tls_context(str(certificate), str(certificate.with_name("test-key.pem"))) if scheme == "http" else None
        )

        with pytest.raises(ConfigError, match=f"inference_address is {scheme}://127.0.0.1:0"):
            await house.listener.open(Address(scheme, "127.0.0.1", 0), context)  # type: ignore[arg-type]

    play(scenario)


# ---- TLS files


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        ("missing.pem", "test-key.pem", "certificate_file .*missing.pem cannot be read: no such file"),
        ("test-certificate.pem", "missing.pem", "private_key_file .*missing.pem cannot be read: no such file"),
        ("test-certificate.pem", "other-key.pem", "KEY_VALUES_MISMATCH"),
        ("test-certificate.pem", "test-certificate.pem", "cannot be used"),
        ("test-key.pem", "test-key.pem", "cannot be used"),
        ("", "test-key.pem", "certificate_file"),
    ],
)
def test_tls_files_that_cannot_be_used_are_named(certificate: str, key: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tls_context(str(TLS / certificate), str(TLS / key))


def test_a_key_with_a_password_is_refused_rather_than_asked_for() -> None:
    with pytest.raises(ConfigError, match="without a password"):
        tls_context(str(TLS / "test-certificate.pem"), str(TLS / "locked-key.pem"))


# ---- limits


@pytest.mark.parametrize("name", ["header_bytes", "body_timeout", "pipeline_depth"])
def test_a_limit_must_be_above_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=f"The HTTP limit {name} is 0"):
        Limits(**{name: 0})
