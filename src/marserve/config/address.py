"""Addresses to listen on: ``http://host:port``, ``https://host:port`` or ``unix:/path``."""

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

#: Longest path of a Unix socket, bytes; ``struct sockaddr_un`` of Linux has room for no more.
_LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class Address:
    """Where a door listens. ``host`` and ``port`` are set for http and https, ``path`` for unix.

    Port 0 asks the system for a free one: two such addresses are never the same place.
    """

    scheme: Literal["http", "https", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_tls(self) -> bool:
        """Whether the door speaks TLS."""
        return self.scheme == "https"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it; a host name other than ``localhost`` counts as open."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(text: str, http_port: int, https_port: int) -> Address:
    """Read an address; the ports are those of an address that names none.

    Raises:
        ValueError: a sentence that says what is wrong with it.
    """
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    parts = urlsplit(text)
    scheme: Literal["http", "https"]
    if parts.scheme == "http":
        scheme = "http"
    elif parts.scheme == "https":
        scheme = "https"
    else:
        raise ValueError("starts neither with http:// nor https:// nor unix:")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("holds more than a host and a port")
    if not parts.hostname:
        raise ValueError("names no host; 127.0.0.1 is this machine alone, 0.0.0.0 is every network")
    default = https_port if scheme == "https" else http_port
    return Address(scheme, parts.hostname, _port(parts.netloc, default))


def _unix(path: str) -> Address:
    if not path:
        raise ValueError("names no path after unix:")
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"is longer than the {_LONGEST_SOCKET_PATH} bytes of a socket's path")
    return Address("unix", path=path)


def _port(netloc: str, default: int) -> int:
    digits = netloc.rpartition("]")[2].partition(":")
    if not digits[1]:
        return default
    if not digits[2].isdecimal() or int(digits[2]) > 65535:
        raise ValueError("has no port between 0 and 65535 after its colon")
    return int(digits[2])
