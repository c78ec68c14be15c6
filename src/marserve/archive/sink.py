"""Where unpacked entries go: each name and each byte is held against the rules before it reaches the disk."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import BinaryIO, Callable, Set, Tuple

from marserve.archive.manifest import MANIFEST_NAME
from marserve.errors import ArchiveError, UnsafeArchive

#: Most bytes after unpacking, all entries together, where the caller sets no other limit.
MAX_BYTES = 64 * 2**30
#: Most entries: a central directory of this size still fits into memory.
MAX_ENTRIES = 200_000
#: An archive that has given RATIO_FLOOR bytes and more than MAX_RATIO times its own size is a bomb. Weights of
#: nothing but zeros deflate 1000 to 1, so small archives are let through whatever their ratio.
MAX_RATIO = 200
RATIO_FLOOR = 2**30
_CHUNK = 2**20


class Sink:
    """One target folder, and what has been put there so far."""

    def __init__(self, archive: Path, target: Path, max_bytes: int) -> None:
        self.archive = archive
        self.target = target
        self.max_bytes = max_bytes
        self.is_wanted: Callable[[str, int], bool] = lambda name, size: True
        self._packed_bytes = archive.stat().st_size if archive.is_file() else None
        self._bytes = 0
        self._entry_count = 0
        self._files: Set[Tuple[str, ...]] = set()
        self._folders: Set[Tuple[str, ...]] = set()

    def expect(self, declared_bytes: int) -> None:
        """Refuse by the archive's own statement, before anything is written."""
        self._check_size(declared_bytes)
        free = shutil.disk_usage(self.target).free
        if declared_bytes > free:
            raise ArchiveError(
                f"{self.archive.name} needs {declared_bytes} bytes unpacked, and {self.target} has {free} free.",
                "Make room, or let the cache lie on a larger disk.",
            )

    def add_folder(self, name: str) -> None:
        """Take note of a folder entry; folders are made when a file needs them."""
        self._count()
        parts = self._safe_parts(name)
        if parts:
            self._add_folders(parts, name)

    def add_file(self, name: str, size: int, open_stream: Callable[[], BinaryIO]) -> bool:
        """Write one file, or raise what is wrong with it; False when nobody wants it.

        Args:
            size: what the archive declares, bytes.
        """
        self._count()
        parts = self._safe_parts(name)
        if not parts:
            raise UnsafeArchive(f"{self._where(name)} has no file name.", "Pack the archive again.")
        self._add_folders(parts[:-1], name)
        # TorchServe's archiver writes two manifests when an unpacked archive is packed again; its readers take
        # the last.
        if parts in self._folders or (parts in self._files and "/".join(parts) != MANIFEST_NAME):
            raise UnsafeArchive(f"{self._where(name)} is there twice.", "Pack the archive again.")
        self._files.add(parts)
        if not self.is_wanted(name, size):
            return False
        path = self.target.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_stream() as stream, open(path, "wb") as out:
            written = self._copy(stream, out)
        if written != size:
            raise ArchiveError(f"{self._where(name)} is cut short: {written} of {size} bytes.", "Copy it again.")
        return True

    def refuse(self, name: str, what: str) -> None:
        """Raise for an entry that is neither file nor folder."""
        raise UnsafeArchive(
            f"{self._where(name)} is {what}; an archive holds files and folders only.",
            "Pack the archive again with the file itself in its place.",
        )

    def _copy(self, stream: BinaryIO, out: BinaryIO) -> int:
        before = self._bytes
        while True:
            chunk = stream.read(_CHUNK)
            if not chunk:
                return self._bytes - before
            self._check_size(self._bytes + len(chunk))
            self._bytes += len(chunk)
            out.write(chunk)

    def _check_size(self, total: int) -> None:
        if total > self.max_bytes:
            raise UnsafeArchive(
                f"{self.archive.name} unpacks to more than {self.max_bytes} bytes.",
                "If that is meant, raise the limit on unpacked archives.",
            )
        if self._packed_bytes is not None and total > max(RATIO_FLOOR, MAX_RATIO * self._packed_bytes):
            raise UnsafeArchive(
                f"{self.archive.name} unpacks to more than {MAX_RATIO} times its own size.",
                "If that is meant, serve the unpacked folder instead.",
            )

    def _count(self) -> None:
        self._entry_count += 1
        if self._entry_count > MAX_ENTRIES:
            raise UnsafeArchive(
                f"{self.archive.name} has more than {MAX_ENTRIES} entries.",
                "Put the small files into one, e.g. a zip.",
            )

    def _add_folders(self, parts: Tuple[str, ...], name: str) -> None:
        for end in range(1, len(parts) + 1):
            if parts[:end] in self._files:
                raise UnsafeArchive(f"{self._where(name)} lies below a file.", "Pack the archive again.")
            self._folders.add(parts[:end])

    def _safe_parts(self, name: str) -> Tuple[str, ...]:
        """Split a name, or refuse one that could mean a place outside of the target on any system."""
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or re.match(r"^[A-Za-z]:", name):
            raise UnsafeArchive(f"{self._where(name)} has an absolute path.", "Pack the archive again.")
        if ".." in parts or "\\" in name:
            raise UnsafeArchive(f"{self._where(name)} could leave its folder.", "Pack the archive again.")
        if any(ord(letter) < 32 for letter in name):
            raise UnsafeArchive(
                f"{self._where(name)} has a control character in its name.", "Pack the archive again."
            )
        return parts

    def _where(self, name: str) -> str:
        return f"Entry {name!r} of {self.archive.name}"
