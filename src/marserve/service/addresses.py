"""What a request names by an address instead of sending it: ``data:`` URIs, and what the operator allows of http(s).

All is decided before a socket is opened: the address has a spelling that nobody reads in two ways, an expression of
the setting ``allowed_input_urls`` matches it, and the host is a public one, unless that expression names the very
host. The same holds for each step of a redirection. The connection goes to the address that was looked at, so that a
name cannot lead elsewhere a moment later; proxies of the environment are not used.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import re
import socket
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, List, NamedTuple, NoReturn, Sequence, Tuple, cast
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

from marserve import __version__
from marserve.archive.urls import matching
from marserve.errors import InvalidData

#: Most bytes that an address may stand for.
MOST_BYTES = 10 * 2**20
#: Longest time that fetching may take, redirections included, seconds; the resolver of host names has its own.
TIMEOUT = 5.0
MOST_REDIRECTIONS = 3
#: Name of the setting.
SETTING = "allowed_input_urls"

_PORTS = {"http": 80, "https": 443}
_MOVED = (301, 302, 303, 307, 308)
# Blanks, control characters and backslashes are read in more than one way, letters beyond ASCII look like others.
_SPELLING = re.compile(r"[!-\[\]-~]+")
#: IPv6 addresses that a gateway turns into the IPv4 ones in their last bits. Source: RFC 6052.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?")


class _Target(NamedTuple):
    """Where an allowed address leads.

    Attributes:
        url: in one spelling; what comes behind ``#`` is left out.
        host: without the brackets of IPv6.
        is_named: whether the operator has named this very host.
    """

    url: str
    scheme: str
    authority: str
    host: str
    port: int
    path: str
    is_named: bool


def fetch(address: object, allowed: Sequence[str], most_bytes: int = MOST_BYTES, timeout: float = TIMEOUT) -> bytes:
    """Return what an address stands for.

    Args:
        address: ``data:…``, ``http://…`` or ``https://…``.
        allowed: expressions of http(s) addresses, as ``context.allowed_input_urls`` has them.
        most_bytes: most bytes of what is returned.
        timeout: longest time that fetching may take, seconds.

    Raises:
        InvalidData: it is not allowed, or cannot be read; says which, and what is allowed.
    """
    if not isinstance(address, str):
        raise InvalidData(f"An address has to be a text, and this one is {type(address).__name__}. {_rules(allowed)}")
    if address[:5].lower() == "data:":
        return _inline(address, most_bytes)
    deadline = time.monotonic() + timeout
    url = address
    try:
        for _ in range(MOST_REDIRECTIONS + 1):
            target = _allowed(url, allowed)
            moved, content = _get(target, _places(target, allowed), deadline, most_bytes)
            if not moved:
                return content
            url = urljoin(target.url, moved)
        raise ValueError(f"it is moved more than {MOST_REDIRECTIONS} times")
    except (OSError, HTTPException, ValueError) as error:
        is_late = isinstance(error, socket.timeout)
        why = f"it took longer than {timeout:g} s" if is_late else str(error) or type(error).__name__
        raise InvalidData(f"The address {_shown(address)} cannot be read: {why}.") from error


def _inline(uri: str, most_bytes: int) -> bytes:
    """Return the content of a ``data:`` URI. Source: RFC 2397."""
    kind, comma, text = uri[5:].partition(",")
    if not comma:
        raise InvalidData(f"The address {_shown(uri)} has no comma before its content.")
    content = unquote_to_bytes(text)
    if kind.lower().endswith(";base64"):
        try:
            content = base64.b64decode(content, validate=True)
        except ValueError as error:
            raise InvalidData(f"The address {_shown(uri)} is no base64: {error}.") from error
    if len(content) > most_bytes:
        raise InvalidData(f"The address {_shown(uri)} holds {len(content)} bytes; {most_bytes} are the most.")
    return content


def _allowed(url: str, allowed: Sequence[str]) -> _Target:
    """Return where an address leads.

    Raises:
        InvalidData: it is not allowed; no socket has been opened and no name looked up.
    """
    if not _SPELLING.fullmatch(url):
        _refuse(url, "holds blanks, control characters, backslashes or letters beyond ASCII", allowed)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        _refuse(url, f"is none ({error})", allowed)
    if parts.scheme not in _PORTS:
        _refuse(url, "is of no kind that is read", allowed)
    authority = parts.netloc.lower()
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found[2] or 0) > 65535:
        _refuse(url, f"has {authority!r} in the place of a host and its port", allowed)
    if ".." in re.split(r"[/\\]", unquote(parts.path)):
        _refuse(url, "goes up in its path", allowed)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    spelled = f"{parts.scheme}://{authority}{path}"
    matched = list(matching(spelled, allowed, SETTING))
    if not matched:
        _refuse(url, "is not allowed", allowed)
    host, port = found[1], int(found[2] or _PORTS[parts.scheme])
    is_named = any(_names(expression, host) for expression in matched)
    return _Target(spelled, parts.scheme, authority, host.strip("[]"), port, path, is_named)


def _names(expression: str, host: str) -> bool:
    """Whether an expression has this very host, letter by letter, behind its ``://``."""
    followed = [rest[len(host) :] for rest in _plain(expression).split("://")[1:] if rest.startswith(host)]
    return any(rest[:1] in ("", "/", ":", "(") for rest in followed)


def _plain(expression: str) -> str:
    return expression.replace("\\", "").lower()


def _places(target: _Target, allowed: Sequence[str]) -> List[Tuple[Any, ...]]:
    """Return the network addresses of a host.

    Raises:
        InvalidData: one of them is not public, and the operator has not named the host.
        OSError: the host is not known.
    """
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    places = [entry[4] for entry in found]
    if not target.is_named and not all(_is_public(str(place[0])) for place in places):
        _refuse(target.url, f"leads to a private host, which no expression of {SETTING} names in full", allowed)
    return places


def _is_public(text: str) -> bool:
    """Whether a network address is one of the internet's, and not of this machine or of the networks around it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
    return address.is_global and not address.is_multicast


def _get(target: _Target, places: Sequence[Tuple[Any, ...]], deadline: float, most_bytes: int) -> Tuple[str, bytes]:
    """Return where a redirection leads, or "" and the content.

    Raises:
        OSError, HTTPException, ValueError: there is neither.
    """
    sock = _connected(places, deadline)
    if target.scheme == "https":
        sock = _secured(sock, target.host, deadline)
    try:
        sock.settimeout(_left(deadline))
        sock.sendall(
            f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: marserve/{__version__}\r\n"
            "Accept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        with HTTPResponse(cast(socket.socket, _Timed(sock, deadline)), method="GET") as response:
            response.begin()
            moved = response.getheader("Location") or ""
            if response.status in _MOVED and moved:
                return moved, b""
            return "", _content(response, most_bytes)
    finally:
        sock.close()


def _content(response: HTTPResponse, most_bytes: int) -> bytes:
    if response.status != 200:
        raise ValueError(f"its host answered {response.status}")
    declared = response.length
    if declared is not None and declared > most_bytes:
        raise ValueError(f"it has {declared} bytes, and {most_bytes} are the most")
    content = response.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes")
    if declared is not None and len(content) < declared:
        raise ValueError(f"the connection broke after {len(content)} of {declared} bytes")
    return content


def _connected(places: Sequence[Tuple[Any, ...]], deadline: float) -> socket.socket:
    failure = OSError("its host has no address")
    for place in places:
        try:
            return socket.create_connection((place[0], place[1]), _left(deadline))
        except OSError as error:
            failure = error
    raise failure


def _secured(sock: socket.socket, host: str, deadline: float) -> socket.socket:
    import ssl

    sock.settimeout(_left(deadline))
    return ssl.create_default_context().wrap_socket(sock, server_hostname=host)


def _left(deadline: float) -> float:
    """Return the seconds until a moment.

    Raises:
        socket.timeout: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left


class _Timed(io.RawIOBase):
    """Reads a socket until one moment, however slowly it sends; the socket that ``HTTPResponse`` is given."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return what ``HTTPResponse`` reads."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """See ``io.IOBase``."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See ``io.RawIOBase``."""
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)


def _refuse(url: str, why: str, allowed: Sequence[str]) -> NoReturn:
    raise InvalidData(f"The address {_shown(url)} {why}. {_rules(allowed)}")


def _rules(allowed: Sequence[str]) -> str:
    if not allowed:
        return f"Allowed are data: URIs alone; the operator can allow others by the setting {SETTING}."
    return f"Allowed are data: URIs, and http(s) addresses that match {' or '.join(allowed)}."


def _shown(address: str) -> str:
    """Return an address as an error shows it: cut, and with what cannot be seen escaped."""
    return ascii(address) if len(address) <= 100 else f"{address[:60]!a}…"
