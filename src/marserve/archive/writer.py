"""Writing archives: the same input gives the same bytes, and nothing is ever half written.

What makes the bytes equal: entries sorted by name with the manifest last, one fixed time (SOURCE_DATE_EPOCH, else
the first moment a zip can hold), fixed rights and owner, fixed compression level. Weights that do not compress are
stored, so that packing takes about as long as copying.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
import uuid
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, List, Mapping, Optional, Tuple, Union

from marserve.archive.gzipped import GzipStream
from marserve.archive.manifest import MANIFEST_NAME
from marserve.errors import ArchiveError

#: What follows the model's name in the output, by format.
FORMATS = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}

#: An entry: a file to pack, or its bytes.
Source = Union[Path, bytes]
#: Called with bytes done and bytes in all, of the input.
Progress = Callable[[int, int], None]

_ZIP_EPOCH = 315532800  # 1980-01-01 00:00:00 UTC
_ZIP_LAST = 4354819198  # 2107-12-31 23:59:58 UTC
_CHUNK = 2**20
#: A file is stored when windows of this size from its start, middle and end keep over STORE_RATIO of their bytes.
_WINDOW = 64 * 1024
_STORE_RATIO = 0.9
_FILE_MODE = 0o100644


@dataclass(frozen=True)
class Packed:
    """A written archive. ``size`` is in bytes; ``sha256`` in hex.

    For a folder the digest is that of its listing: one line ``<sha256 of the file>  <name>`` a file, sorted.
    """

    path: Path
    size: int
    sha256: str


def build_time() -> int:
    """Return the one time that archives carry, seconds since 1970: SOURCE_DATE_EPOCH, else the start of 1980.

    Raises:
        ArchiveError: SOURCE_DATE_EPOCH is no whole number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    if not text:
        return _ZIP_EPOCH
    if not text.isdigit():
        raise ArchiveError(f"SOURCE_DATE_EPOCH is {text!r}.", "Set it to whole seconds since 1970, or unset it.")
    return min(max(int(text), _ZIP_EPOCH), _ZIP_LAST)


def output_path(folder: Path, model_name: str, archive_format: str) -> Path:
    """Return where ``write_archive`` would put a model of that name."""
    return folder / (model_name + FORMATS[archive_format])


def write_archive(
    entries: Mapping[str, Source],
    output: Path,
    archive_format: str,
    force: bool = False,
    progress: Optional[Progress] = None,
    keep_others: bool = False,
) -> Packed:
    """Write entries into one archive, or into a folder in archive form.

    Args:
        entries: source by name in the archive, the manifest among them.
        output: see ``output_path``; its folder must exist. An entry that is the output itself is left out.
        archive_format: a key of FORMATS.
        force: replace what is there.
        progress: told about the input's bytes as they are packed.
        keep_others: with a folder that is there already, keep its other files; as the old archivers do.

    Raises:
        ArchiveError: the output is there and ``force`` is not set, or a file cannot be read or written.
    """
    if output.exists() and not force:
        raise ArchiveError(
            f"{output} already exists.",
            "Please specify --force/-f option to overwrite the model archive output file.\n"
            "See -h/--help for more details.",
        )
    plan = _ordered({name: source for name, source in entries.items() if not _is_same(source, output)})
    try:
        meter = _Meter(sum(_size(source) for _, source in plan), progress)
        if archive_format == "no-archive":
            return _write_folder(plan, output, meter, keep_others)
        with replacing_file(output) as out:
            if archive_format == "tgz":
                _write_tgz(plan, out, output.name[: -len(FORMATS["tgz"])], meter)
            else:
                _write_zip(plan, out, archive_format == "default", meter)
            # Zip headers are corrected after their data, so the digest can only be taken of what was written;
            # the bytes are still in memory then.
            out.flush()
            out.seek(0)
            sha256 = _digest(out)
    except OSError as error:
        raise ArchiveError(
            f"{output} could not be written: {error}.", "Check paths, rights and free space."
        ) from error
    return Packed(output, output.stat().st_size, sha256)


class _Meter:
    """Copies sources and tells how far it is."""

    def __init__(self, total: int, progress: Optional[Progress]) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def copy(self, source: Source, size: int, write: Callable[[bytes], object]) -> None:
        """Hand a source to ``write`` piece by piece; one that has not ``size`` bytes any more is refused."""
        left = size
        for chunk in _chunks(source):
            left -= len(chunk)
            if left < 0:
                break
            write(chunk)
            self._done += len(chunk)
            if self._progress is not None:
                self._progress(self._done, self._total)
        if left:
            raise ArchiveError(f"{source!s} changed while it was packed.", "Pack again when nothing writes to it.")


def _ordered(entries: Mapping[str, Source]) -> List[Tuple[str, Source]]:
    """Sort by name, the manifest last: where both old archivers put it."""
    return sorted(entries.items(), key=lambda entry: (entry[0] == MANIFEST_NAME, entry[0]))


def _size(source: Source) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _is_same(source: Source, output: Path) -> bool:
    return isinstance(source, Path) and source.exists() and output.exists() and source.samefile(output)


def _chunks(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield from (source,) if source else ()
        return
    with open(source, "rb", buffering=0) as stream:
        while True:
            chunk = stream.read(_CHUNK)
            if not chunk:
                return
            yield chunk


def _compresses(source: Source) -> bool:
    """Judge by three windows, so that nobody waits while a gigabyte of random bits is deflated in vain."""
    size = _size(source)
    if isinstance(source, bytes):
        sample = source[: 3 * _WINDOW]
    else:
        starts = (0, _WINDOW, 2 * _WINDOW) if size <= 3 * _WINDOW else (0, size // 2, size - _WINDOW)
        with open(source, "rb", buffering=0) as stream:
            sample = b"".join(_read_at(stream, start) for start in starts)
    return len(zlib.compress(sample, 1)) <= _STORE_RATIO * len(sample)


def _read_at(stream: BinaryIO, start: int) -> bytes:
    stream.seek(start)
    return stream.read(_WINDOW)


def _digest(stream: BinaryIO) -> str:
    sha256 = hashlib.sha256()
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        sha256.update(chunk)
    return sha256.hexdigest()


def _write_zip(plan: List[Tuple[str, Source]], out: BinaryIO, may_deflate: bool, meter: _Meter) -> None:
    with zipfile.ZipFile(out, "w") as packed:
        for name, source in plan:
            info = zipfile.ZipInfo(name, time.gmtime(build_time())[:6])
            info.create_system = 3
            info.external_attr = _FILE_MODE << 16
            info.file_size = _size(source)
            is_deflated = may_deflate and _compresses(source)
            info.compress_type = zipfile.ZIP_DEFLATED if is_deflated else zipfile.ZIP_STORED
            with packed.open(info, "w") as sink:
                meter.copy(source, info.file_size, sink.write)


def _write_tgz(plan: List[Tuple[str, Source]], out: BinaryIO, prefix: str, meter: _Meter) -> None:
    stream = GzipStream(out)
    for name, source in plan:
        info = tarfile.TarInfo(f"{prefix}/{name}")
        info.size, info.mtime, info.mode = _size(source), build_time(), 0o644
        stream.is_stored = False
        stream.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        stream.is_stored = not _compresses(source)
        meter.copy(source, info.size, stream.write)
        stream.is_stored = False
        stream.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))
    stream.write(b"\0" * (2 * tarfile.BLOCKSIZE))
    stream.finish()


def _write_folder(plan: List[Tuple[str, Source]], output: Path, meter: _Meter, keep_others: bool) -> Packed:
    """Write a folder beside its place and move it there, or file by file when others are to stay."""
    is_overlay = keep_others and output.is_dir()
    if output.exists() and not is_overlay:
        _refuse_inputs_in(output, plan)
    target = output if is_overlay else _beside(output)
    listing = hashlib.sha256()
    total = 0
    try:
        for name, source in plan:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            listing.update(f"{_place(source, path, meter)}  {name}\n".encode("utf-8", "surrogateescape"))
            total += _size(source)
        if not is_overlay:
            _swap(target, output)
    except BaseException:
        if not is_overlay:
            shutil.rmtree(target, ignore_errors=True)
        raise
    return Packed(output, total, listing.hexdigest())


def _place(source: Source, path: Path, meter: _Meter) -> str:
    """Write one file of a folder and return its SHA-256; a file that is its own source stays as it is."""
    sha256 = hashlib.sha256()
    if _is_same(source, path):
        meter.copy(source, _size(source), sha256.update)
        return sha256.hexdigest()
    with replacing_file(path) as out:

        def take(chunk: bytes) -> None:
            sha256.update(chunk)
            out.write(chunk)

        meter.copy(source, _size(source), take)
        if isinstance(source, Path) and os.access(source, os.X_OK):
            # The folder is served where it lies, and a service may run what is in it.
            mode = os.fstat(out.fileno()).st_mode
            os.fchmod(out.fileno(), mode | (mode & 0o444) >> 2)
    return sha256.hexdigest()


def _refuse_inputs_in(output: Path, plan: List[Tuple[str, Source]]) -> None:
    for _, source in plan:
        if isinstance(source, Path) and output.resolve() in source.resolve().parents:
            raise ArchiveError(
                f"{source} lies in {output}, which would be replaced.", "Choose another --output, or another name."
            )


def _swap(new: Path, output: Path) -> None:
    if not output.exists():
        os.rename(new, output)
        return
    old = _beside(output)
    os.rename(output, old)
    try:
        os.rename(new, output)
    except BaseException:
        os.rename(old, output)
        raise
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink()


def _beside(path: Path) -> Path:
    """Return a name in the same folder, so that moving it into place is one step for every reader."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextmanager
def replacing_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well, and vanishes when it does not."""
    partial = _beside(path)
    try:
        with open(partial, "x+b") as out:
            yield out
        os.replace(partial, path)
    except BaseException:
        if partial.exists():
            partial.unlink()
        raise
