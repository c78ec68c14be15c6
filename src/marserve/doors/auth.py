"""The keys of the doors: one to ask for predictions, one to manage models, one to renew those two; and their file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import NamedTuple

from marserve.errors import ConfigError, NotAuthorized

#: The kinds of keys, as the key file names them.
INFERENCE = "inference"
MANAGEMENT = "management"
API = "API"
#: The kinds that expire, and that the API key renews.
RENEWABLE = (MANAGEMENT, INFERENCE)

#: Random bytes of a key; they make eight characters.
_KEY_BYTES = 6
#: ``Bearer`` in this letter case and one key, as the clients of TorchServe send it.
_BEARER = re.compile(rb"Bearer\s+(\S+)")
#: The last moment that a date can tell, year 9999: a longer lifetime ends there.
_LAST_MOMENT = 253_402_300_799.0


class Key(NamedTuple):
    """One key: its text, the header value that carries it, and when it expires (Unix time, seconds)."""

    text: str
    header: bytes
    expires: float


class Keys:
    """The three keys of a server.

    Args:
        lifetime: of an inference or management key, seconds; the API key never expires.
        save: takes the text of the key file each time that the keys change.
        clock: Unix time in seconds; the key file tells it to people, so it is not the monotonic one.

    Source: TorchServe 0.12, token authorization.
    """

    def __init__(self, lifetime: float, save: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._lifetime = lifetime
        self._save = save
        self._clock = clock
        self._keys: Mapping[str, Key] = {
            MANAGEMENT: self._fresh(),
            INFERENCE: self._fresh(),
            API: _key(float("inf")),
        }

    def __getitem__(self, kind: str) -> Key:
        return self._keys[kind]

    def _fresh(self) -> Key:
        return _key(min(self._clock() + self._lifetime, _LAST_MOMENT))

    def publish(self) -> None:
        """Save the keys as they are."""
        self._save(_file_text(self._keys))

    def renew(self, kind: str) -> float:
        """Replace the inference or the management key; return when the new one expires, Unix time.

        It is saved first: when that fails, the old key goes on.
        """
        keys = {**self._keys, kind: self._fresh()}
        self._save(_file_text(keys))
        self._keys = keys
        return keys[kind].expires

    def fits(self, kind: str, authorization: bytes) -> bool:
        """Tell whether the value of an ``Authorization`` header carries the key of a kind, and it has not expired."""
        key = self._keys[kind]
        return _carries(authorization, key) and self._clock() < key.expires

    def refusal(self, kinds: Collection[str], authorization: bytes) -> NotAuthorized:
        """Return what to tell a request that needs a key of one of ``kinds`` and carries none of them."""
        wanted = " or ".join(sorted(kinds))
        hint = f"Send `Authorization: Bearer KEY` with the {wanted} key of the server's key file."
        fault = "renewal" if API in kinds else ""
        if not authorization:
            return NotAuthorized("This needs a key, and the request carries none.", hint, fault)
        found = next((kind for kind, key in self._keys.items() if _carries(authorization, key)), None)
        if found is None:
            return NotAuthorized("The key is wrong, or it has been renewed since.", hint, fault)
        if not self.fits(found, authorization):
            hint = f"Renew it: /token?type={found} on the management address, with the API key."
            return NotAuthorized(f"The {found} key has expired.", hint, fault)
        fault = f"{fault}_wrong_kind" if fault else "wrong_kind"
        return NotAuthorized(f"This needs the {wanted} key, and the request carries the {found} key.", hint, fault)


def authorization_in(headers: Sequence[bytes]) -> bytes:
    """Return the value of the first ``Authorization`` header of a flat list of names and values; b"" for none."""
    for index in range(0, len(headers), 2):
        name = headers[index]
        if len(name) == 13 and name.lower() == b"authorization":
            return headers[index + 1]
    return b""


def _key(expires: float) -> Key:
    text = secrets.token_urlsafe(_KEY_BYTES)
    return Key(text, b"Bearer " + text.encode(), expires)


def _carries(authorization: bytes, key: Key) -> bool:
    # The usual spelling costs one comparison; only what does not fit is looked at closer.
    if compare_digest(authorization, key.header):
        return True
    found = _BEARER.fullmatch(authorization)
    return found is not None and compare_digest(found[1], key.text.encode())


def _file_text(keys: Mapping[str, Key]) -> str:
    members = {}
    for kind, key in keys.items():
        members[kind] = {"key": key.text}
        if kind in RENEWABLE:
            moment = datetime.fromtimestamp(key.expires, UTC).isoformat(timespec="microseconds")
            members[kind]["expiration time"] = moment.replace("+00:00", "Z")
    return json.dumps(members, indent=2)


class KeyFile:
    """The file from which people and programs take the keys; only its owner can read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = ""

    def write(self, text: str) -> None:
        """Put a text in the place of the file, whole or not at all.

        Raises:
            ConfigError: the file cannot be written.
        """
        temporary = ""
        try:
            # Nobody else may read it, from its first byte on: mkstemp makes files of mode 0600.
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(text)
            os.replace(temporary, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"The key file {self.path} cannot be written: {reason}.",
                "Set key_file to a path in a folder that may be written to, or switch tokens off.",
            ) from error
        self._written = text

    def remove(self) -> None:
        """Remove the file, unless another server has put its own in its place."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if self._written and self.path.read_text(encoding="ascii") == self._written:
                self.path.unlink()


def read_keys(path: Path) -> dict[str, str]:
    """Return the keys of a key file by kind; {} when it cannot be read."""
    try:
        members = json.loads(path.read_text(encoding="ascii"))
        return {kind: str(member["key"]) for kind, member in members.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
