"""Addresses that requests name: what is refused before a socket is opened, and what ``data:`` URIs hold."""

from __future__ import annotations

import base64
import socket

import pytest

from marserve.errors import InvalidData
from marserve.service import addresses
from marserve.service.addresses import fetch

ALLOWED = [r"https?://pictures\.example(:8443)?/public/.*", r"http://10\.0\.0\.5(:\d+)?/.*", r"http://\[::1\]:9/.*"]
PUBLIC = "93.184.215.14"


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test that opens a socket, or looks a name up."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, fail)


class Reached(Exception):
    """The address was let through; holds the places that would be connected to."""


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Network addresses by host name; who gets as far as a connection raises ``Reached``."""
    known: dict[str, list[str]] = {}

    def look_up(host: str, port: int, type: int = 0) -> list[tuple[object, ...]]:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", (place, port)) for place in known[host]]

    def connect(places: list[tuple[str, int]], deadline: float) -> None:
        raise Reached(places)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(addresses, "_connected", connect)
    return known


# data:


@pytest.mark.parametrize(
    ("uri", "content"),
    [
        ("data:image/png;base64,AAEC", b"\x00\x01\x02"),
        ("DATA:image/png;BASE64,AAEC", b"\x00\x01\x02"),
        ("data:;base64,AAE%3D", b"\x00\x01"),
        ("data:image/png;base64,%2B%2F%2f%2B", base64.b64decode("+//+")),
        ("data:,a%20b+c", b"a b+c"),
        ("data:text/plain;charset=utf-8,%C3%A4", "ä".encode()),
        ("data:,", b""),
    ],
)
def test_what_a_data_uri_holds_is_always_read(uri: str, content: bytes) -> None:
    assert fetch(uri, ()) == content


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,A", "no base64"),
        ("data:image/png;base64,AA EC", "no base64"),
        ("data:image/png;base64,ÄÄÄÄ", "no base64"),
        ("data:,12345", "holds 5 bytes; 4 are the most"),
        ("data:;base64,AAECAwQ=", "holds 5 bytes; 4 are the most"),
    ],
)
def test_a_data_uri_that_cannot_be_read_or_is_too_large_is_refused(uri: str, why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        fetch(uri, (), most_bytes=4)


# What is refused by its spelling


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://pictures.example/public/a.png",
        "gopher://pictures.example/public/a.png",
        "//pictures.example/public/a.png",
        "/etc/passwd",
        "a.png",
        "",
        "http:pictures.example/public/a.png",
        "http:///public/a.png",
        "javascript:alert(1)",
        "jar:http://pictures.example/public/a.png!/",
    ],
)
def test_what_is_no_address_of_the_web_is_refused(address: str) -> None:
    with pytest.raises(
        InvalidData, match=r"Allowed are data: URIs, and http\(s\) addresses that match https\?://pic"
    ):
        fetch(address, [*ALLOWED, ".*"])


@pytest.mark.parametrize(
    "address",
    [
        "http://pictures.example@evil.example/public/a.png",
        "http://user:secret@pictures.example/public/a.png",
        "http://evil.example\\@pictures.example/public/a.png",
        "http://pictures.example\\.evil.example/public/a.png",
        "http://pictures.example /public/a.png",
        " http://pictures.example/public/a.png",
        "http://pictures.example/public/a.png\r\nHost: evil.example",
        "http://pictures.example/public/\x00a.png",
        "http://pictures.example/public/\ta.png",
        "ht\ntp://pictures.example/public/a.png",
        "http://pictures%2eexample/public/a.png",
        "http://pictures.example:port/public/a.png",
        "http://pictures.example:99999/public/a.png",
        "http://pictures.example:/public/a.png",
        "http://\uff50ictures.example/public/a.png",
        "http://pictures\u3002example/public/a.png",
        "http://[::1/public/a.png",
        "http://[fe80::1%25eth0]/public/a.png",
        "http://pictures.example/public/../secret/a.png",
        "http://pictures.example/public/%2e%2e/secret/a.png",
        "http://pictures.example/public/..%2fsecret/a.png",
        "http://pictures.example/public/%2e%2e%5csecret/a.png",
    ],
)
def test_what_may_be_read_in_two_ways_is_refused_whatever_is_allowed(address: str) -> None:
    with pytest.raises(InvalidData, match="Allowed are data: URIs"):
        fetch(address, [*ALLOWED, "(?s).*"])


@pytest.mark.parametrize(
    "address",
    [
        "http://evil.example/public/a.png",
        "http://pictures.example.evil.example/public/a.png",
        "http://evil.example/?http://pictures.example/public/a.png",
        "http://evil.example#@pictures.example/public/a.png",
        "http://evil.example/#http://pictures.example/public/a.png",
        "http://pictures.example/private/a.png",
        "http://pictures.example:8080/public/a.png",
        "http://picturesxexample/public/a.png",
        "http://10.0.0.50/a.png",
    ],
)
def test_what_no_expression_matches_is_refused(address: str) -> None:
    with pytest.raises(InvalidData, match="is not allowed"):
        fetch(address, ALLOWED)


@pytest.mark.parametrize("address", [None, 7, {"b64": ""}, ["http://a/"], b"data:,a"])
def test_what_is_no_text_is_refused(address: object) -> None:
    with pytest.raises(InvalidData, match="has to be a text"):
        fetch(address, ALLOWED)


def test_where_nothing_is_allowed_the_setting_is_named() -> None:
    with pytest.raises(InvalidData, match=r"Allowed are data: URIs alone.*by the setting allowed_input_urls"):
        fetch("https://pictures.example/public/a.png", ())


def test_an_error_shows_the_beginning_of_an_address_and_nothing_that_cannot_be_seen() -> None:
    with pytest.raises(InvalidData) as refused:
        fetch("http://evil\r\n" + "x" * 10_000, ALLOWED)
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


# Where it leads


@pytest.mark.parametrize(
    "address",
    [
        "http://pictures.example/public/a.png",
        "HTTP://PICTURES.example/public/a.png",
        "https://pictures.example:8443/public/a.png?size=2#part",
    ],
)
def test_what_is_allowed_goes_to_the_address_that_was_looked_at(address: str, hosts: dict[str, list[str]]) -> None:
    hosts["pictures.example"] = [PUBLIC]
    port = 8443 if ":8443" in address else 80

    with pytest.raises(Reached) as reached:
        fetch(address, ALLOWED)

    assert reached.value.args == ([(PUBLIC, port)],)


@pytest.mark.parametrize(
    "place",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "64:ff9b::169.254.169.254",
    ],
)
def test_a_private_host_is_refused_unless_it_is_named(place: str, hosts: dict[str, list[str]]) -> None:
    hosts["inside.example"] = [PUBLIC, place]

    for expression in ("https?://.*", r"http://[a-z]+\.example/.*", r"http://.*inside\.example/.*"):
        with pytest.raises(InvalidData, match="leads to a private host"):
            fetch("http://inside.example/a.png", [expression])
    for expression in (r"http://inside\.example/.*", r"https?://inside.example(:80)?/.*"):
        with pytest.raises(Reached):
            fetch("http://inside.example/a.png", [expression])


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost", "[::1]", "10.0.0.50"])
def test_no_notation_of_a_private_host_gets_around_it(host: str, hosts: dict[str, list[str]]) -> None:
    hosts[host.strip("[]")] = ["::1" if ":" in host else "127.0.0.1"]

    with pytest.raises(InvalidData, match="leads to a private host"):
        fetch(f"http://{host}/a.png", ["http://.*", *ALLOWED])


@pytest.mark.parametrize("address", ["http://10.0.0.5/a.png", "http://10.0.0.5:81/a.png", "http://[::1]:9/a.png"])
def test_a_private_host_that_is_named_is_reached(address: str, hosts: dict[str, list[str]]) -> None:
    hosts["10.0.0.5"], hosts["::1"] = ["10.0.0.5"], ["::1"]

    with pytest.raises(Reached):
        fetch(address, ALLOWED)


def test_a_host_that_nobody_knows_is_told(hosts: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidData, match=r"cannot be read: .*Name or service not known"):
        fetch("http://pictures.example/public/a.png", ALLOWED)
