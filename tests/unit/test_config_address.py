"""Addresses: what is read, what is refused, and what they tell about themselves."""

import pytest

from marserve.config.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8080", Address("http", "127.0.0.1", 8080)),
        ("http://0.0.0.0:0", Address("http", "0.0.0.0", 0)),
        ("http://host", Address("http", "host", 80)),
        ("https://host", Address("https", "host", 443)),
        ("https://host:65535/", Address("https", "host", 65535)),
        ("http://[::1]:8080", Address("http", "::1", 8080)),
        ("http://[::1]", Address("http", "::1", 80)),
        ("unix:/tmp/a.sock", Address("unix", path="/tmp/a.sock")),
    ],
)
def test_addresses_that_are_read_back_from_their_text(text: str, address: Address) -> None:
    assert parse_address(text, 80, 443) == address
    assert parse_address(str(address), 1, 2) == address


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("127.0.0.1:8080", "starts neither"),
        ("ftp://host:21", "starts neither"),
        ("http://host:65536", "port"),
        ("http://host:", "port"),
        ("http://host:80a", "port"),
        ("http://host:-1", "port"),
        ("http://:8080", "names no host"),
        ("http://host:80/path", "more than a host"),
        ("http://user@host:80", "more than a host"),
        ("unix:", "names no path"),
        ("unix:/" + "a" * 107, "longer"),
    ],
)
def test_addresses_that_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_address(text, 80, 443)


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("unix:/a", True),
        ("http://0.0.0.0:1", False),
        ("http://[::]:1", False),
        ("http://10.0.0.1:1", False),
        ("http://host:1", False),
    ],
)
def test_only_loopback_is_local(text: str, is_local: bool) -> None:
    assert parse_address(text, 80, 443).is_local is is_local
