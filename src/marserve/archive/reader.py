"""Reading archives: zip, tgz or folder, checked entry by entry while they are unpacked."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Iterator, List, Tuple, cast

from marserve.archive.manifest import Manifest, manifest_root, read_manifest
from marserve.archive.sink import MAX_BYTES, Sink
from marserve.errors import ArchiveError, ServeError, UnsafeArchive

#: Most bytes of tar headers (long names, extended attributes) before one entry; they are held in memory.
_MAX_TAR_HEADER = 2**20
#: Largest file that ``peek`` unpacks.
_MAX_DESCRIPTION = 2**20
_CHUNK = 2**20
_ZIP_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


@dataclass(frozen=True)
class Entry:
    """One file of an archive: name, bytes unpacked, bytes packed (tgz: -1, packed as a whole), method."""

    name: str
    size: int
    packed_size: int
    method: str


def archive_format(archive: Path) -> str:
    """Return ``folder``, ``zip`` or ``tgz``, judged by the content and not by the name.

    Raises:
        ArchiveError: none of them, or not there.
    """
    if archive.is_dir():
        return "folder"
    try:
        with open(archive, "rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise ArchiveError(
            f"{archive} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    if start[:2] == b"\x1f\x8b":
        return "tgz"
    # A zip may have bytes in front of it, and an empty one has nothing but its end record.
    if start[:2] == b"PK" or zipfile.is_zipfile(archive):
        return "zip"
    raise ArchiveError(f"{archive.name} is neither a zip nor a gzip file.", "Pack or copy the archive again.")


def is_junk(archive: Path) -> bool:
    """Tell whether a file is named like an archive and is none: TorchServe takes such a file for an empty archive."""
    try:
        archive_format(archive)
    except ArchiveError:
        return archive.suffix in (".mar", ".model") and archive.is_file()
    return False


def unpack(archive: Path, target: Path, max_bytes: int, must_be_whole: bool = True) -> Manifest:
    """Unpack an archive and return its manifest.

    Args:
        archive: path of a ``.mar`` (zip or tgz) or of a folder in archive form.
        target: empty folder; left empty when anything is refused.
        max_bytes: most bytes after unpacking, all members together.
        must_be_whole: the files that the manifest names must be there.

    Raises:
        UnsafeArchive: a member leaves ``target``, is a link, or passes ``max_bytes``.
        ManifestError: the manifest is broken, or names a file that is not there.
        ArchiveError: the archive is cut short, broken, encrypted, or no archive.

    Source: TorchServe model archiver, ``--archive-format``.
    """
    return _unpack(archive, Sink(archive, target, max_bytes), must_be_whole)


def peek(archive: Path, target: Path) -> Manifest:
    """Unpack only what describes the archive (manifest, signature, configuration) and return its manifest.

    Raises:
        ArchiveError: as for ``unpack``, as far as it shows without reading the rest. Files that the manifest
            names are not looked for.
    """
    sink = Sink(archive, target, MAX_BYTES)
    sink.is_wanted = lambda name, size: size <= _MAX_DESCRIPTION and name.endswith((".json", ".yaml", ".yml"))
    return _unpack(archive, sink, must_be_whole=False)


def list_entries(archive: Path) -> List[Entry]:
    """Return the files of an archive as they are stored, in the archive's order.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    kind = archive_format(archive)
    try:
        return list(_LISTERS[kind](archive))
    except ServeError:
        raise
    except Exception as error:
        raise _broken(archive, error) from error


def files_below(folder: Path) -> Iterator[Tuple[str, Path]]:
    """Yield name with slashes, and path, of each file below a folder, sorted."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield path.relative_to(folder).as_posix(), path


def _unpack(archive: Path, sink: Sink, must_be_whole: bool) -> Manifest:
    sink.target.mkdir(parents=True, exist_ok=True)
    if any(sink.target.iterdir()):
        raise ValueError(f"{sink.target} is not empty")
    try:
        _extract(archive, sink)
        return read_manifest(sink.target, must_be_whole)
    except BaseException:
        _empty(sink.target)
        raise


def _extract(archive: Path, sink: Sink) -> None:
    kind = archive_format(archive)
    try:
        _EXTRACTORS[kind](archive, sink)
        _lift(sink.target, is_wrapped=kind == "tgz")
    except ServeError:
        raise
    # A damaged file makes the readers raise nearly anything: struct.error, zlib.error, KeyError, EOFError, …
    except Exception as error:
        raise _broken(archive, error) from error


def _broken(archive: Path, error: Exception) -> ArchiveError:
    if isinstance(error, OSError) and error.errno is not None:
        return ArchiveError(f"{archive.name} could not be unpacked: {error}.", "Check the disk and the rights.")
    return ArchiveError(
        f"{archive.name} is damaged or cut short: {str(error) or type(error).__name__}.",
        "Copy or pack the archive again.",
    )


def _extract_zip(archive: Path, sink: Sink) -> None:
    with zipfile.ZipFile(archive) as packed:
        sizes = [(info.filename, info.file_size) for info in packed.infolist()]
        sink.expect(sum(size for name, size in sizes if sink.is_wanted(name, size)))
        for info in packed.infolist():
            # zipfile cuts names at a zero byte; the name as written tells.
            name = info.orig_filename
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                sink.refuse(name, "a link" if kind == stat.S_IFLNK else "a device")
            if info.flag_bits & 1:
                raise ArchiveError(f"{archive.name} is encrypted.", "Pack it without a password.")
            if info.is_dir():
                sink.add_folder(name)
            else:
                sink.add_file(name, info.file_size, partial(_open_member, packed, info))


def _open_file(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_member(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, packed.open(info))


def _extract_tgz(archive: Path, sink: Sink) -> None:
    with gzip.open(archive, "rb") as plain:
        reader = _Limited(cast(BinaryIO, plain))
        # As a stream, because a step back in a gzip file means to read it again from its start.
        with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r|", bufsize=_CHUNK) as packed:
            unread = 0
            while True:
                reader.allow(unread + _MAX_TAR_HEADER + _CHUNK)
                member = packed.next()
                if member is None:
                    break
                reader.allow(member.size + _MAX_TAR_HEADER + _CHUNK)
                unread = 0 if _extract_member(packed, member, sink) else member.size
        reader.allow(_MAX_TAR_HEADER)
        # The rest holds gzip's check sum, and nothing else would notice that it is missing.
        while reader.read(_CHUNK):
            pass


def _extract_member(packed: tarfile.TarFile, member: tarfile.TarInfo, sink: Sink) -> bool:
    """Hand one tar entry to the sink; False when its bytes were left unread."""
    if member.isdir():
        sink.add_folder(member.name)
        return False
    if not member.isreg() or member.issparse():
        is_link = member.issym() or member.islnk()
        sink.refuse(member.name, "a link" if is_link else "no plain file")
    return sink.add_file(member.name, member.size, lambda: cast(BinaryIO, packed.extractfile(member)))


def _extract_folder(archive: Path, sink: Sink) -> None:
    for parent, folders, _ in os.walk(archive):
        for name in folders:
            if Path(parent, name).is_symlink():
                sink.refuse(name, "a link")
    for name, path in files_below(archive):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            sink.refuse(name, "a link" if stat.S_ISLNK(status.st_mode) else "no plain file")
        sink.add_file(name, status.st_size, partial(_open_file, path))


class _Limited:
    """A stream that gives no more than was allowed: what stands before a tar entry is read into memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        # tarfile reads the first header as soon as it is opened.
        self._left = _MAX_TAR_HEADER + _CHUNK

    def allow(self, size: int) -> None:
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UnsafeArchive("A header of the archive is longer than any that is meant.", "Pack it again.")
        return data


_EXTRACTORS = {"zip": _extract_zip, "tgz": _extract_tgz, "folder": _extract_folder}


def _lift(target: Path, is_wrapped: bool) -> None:
    """Move everything one level up when one folder stands around it.

    In a tgz it is the archive's name; in a zip it is only taken for that when the manifest lies below it.
    """
    root = manifest_root(target)
    children = list(target.iterdir())
    if is_wrapped and root == target and len(children) == 1 and children[0].is_dir():
        root = target if children[0].name == "MAR-INF" else children[0]
    if root == target:
        return
    aside = Path(tempfile.mkdtemp(prefix=".lift-", dir=target))
    os.rename(root, aside / "root")
    for child in (aside / "root").iterdir():
        os.rename(child, target / child.name)
    shutil.rmtree(aside)
    if is_wrapped:  # by the name of its archive; what it is wrapped in beside that is seen as in a zip
        _lift(target, is_wrapped=False)


def _empty(target: Path) -> None:
    """Remove what was unpacked; the folder itself stays, it is the caller's."""
    for child in target.iterdir() if target.is_dir() else ():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink()


def _list_zip(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if not info.is_dir():
                method = _ZIP_METHODS.get(info.compress_type, f"method {info.compress_type}")
                yield Entry(info.filename, info.file_size, info.compress_size, method)


def _list_tgz(archive: Path) -> Iterator[Entry]:
    with tarfile.open(archive, "r:gz") as packed:
        for member in packed:
            if not member.isdir():
                yield Entry(member.name, member.size, -1, "gzip")


def _list_folder(archive: Path) -> Iterator[Entry]:
    for name, path in files_below(archive):
        size = path.stat().st_size
        yield Entry(name, size, size, "file")


_LISTERS = {"zip": _list_zip, "tgz": _list_tgz, "folder": _list_folder}
