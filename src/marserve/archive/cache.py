"""Unpacked archives by the SHA-256 of their file: unpacked once, shared by all that serve the same bytes.

Handlers written for the old servers write into their model's folder and expect to find it new. For them an archive is
unpacked into a folder of its own, outside of the cache, and whoever named that folder removes it.

::

    root/<sha256>/         an unpacked archive; complete, because it was renamed into place
    root/<sha256>.files    the names of its files: a sweeper of temporary files may have taken some
    root/.partial-*/       being unpacked, held by a lock; without a lock a leftover, removed on sight
    root/hashes.json       digest by path, size, times and inode, so that a restart hashes nothing again

``python -m marserve.archive.cache`` does it in a process of its own and prints the result as one JSON object: the
server's loop must not wait for a disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
import traceback
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from marserve.archive import store
from marserve.archive.config import load_config
from marserve.archive.environment import environment_for, interpreter, view_of, with_venv
from marserve.archive.interpreters import program_interpreter
from marserve.archive.manifest import RUNTIMES, Manifest, check_as_mms, manifest_root, read_manifest
from marserve.archive.needs import KEYS, needs_of
from marserve.archive.reader import archive_format, files_below, is_junk, unpack
from marserve.archive.signature import Signature, load_signature
from marserve.archive.sink import MAX_BYTES
from marserve.archive.writer import replacing_file
from marserve.errors import ArchiveError, EnvironmentFault, ManifestError, ServeError, SignatureError, about

_PARTIAL = ".partial-"
_CHUNK = 2**20
#: A file younger than this may change again without another time stamp; its digest is not remembered. Seconds.
_SETTLED_AFTER = 2.0


@dataclass(frozen=True)
class CachedArchive:
    """An archive that is ready to be served.

    Attributes:
        path: folder with its files; of a folder archive that folder itself, which nobody but its owner removes.
        sha256: of the archive's file, in hex; empty for a folder, and for what was unpacked outside of the cache.
        config: the ``model-config.yaml`` that the manifest names.
        warnings: what the operator should know, one sentence each.
    """

    path: Path
    sha256: str
    manifest: Manifest
    signature: Optional[Signature]
    config: Dict[str, object] = field(default_factory=dict)
    warnings: Tuple[str, ...] = ()

    def to_json(self) -> Dict[str, object]:
        """Return what the command prints; ``Manifest.parse`` and ``Signature.parse`` take their members back."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "family": self.manifest.family,
            "manifest": self.manifest.raw,
            "signature": self.signature.raw if self.signature else None,
            "config": self.config,
            "warnings": list(self.warnings),
        }


class Cache:
    """A folder of unpacked archives; any number of processes may use the same one."""

    def __init__(self, root: Path, max_bytes: int = MAX_BYTES, is_lenient: bool = False) -> None:
        """Use ``root``, made when needed.

        Args:
            max_bytes: most that one archive may unpack to.
            is_lenient: take what TorchServe takes: junk named like an archive, as an empty one, and manifests that
                name files that are not there.
        """
        self.root = root
        self.max_bytes = max_bytes
        self.is_lenient = is_lenient

    def open(self, archive: Path, own: Optional[Path] = None) -> CachedArchive:
        """Return an archive unpacked, from the cache where it has it. A folder is used where it lies.

        Args:
            own: new folder to unpack into, beside the cache and without it; None for the cache.

        Raises:
            ArchiveError: the archive is refused; nothing of it is left.
        """
        is_empty = self.is_lenient and is_junk(archive)
        if not is_empty and archive_format(archive) == "folder":
            return self._describe(manifest_root(archive.resolve()), "")
        if own is not None:
            return self._open_alone(archive, own, is_empty)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            stamp = _stamp(archive)
            sha256 = self._digest(archive, stamp)
            if not self._is_whole(sha256):
                self._fill(archive, sha256, stamp, is_empty)
        except OSError as error:
            raise ArchiveError(
                f"{archive.name} could not be put into the cache {self.root}: {error}.",
                "Check rights and free space.",
            ) from error
        return self._describe(self.root / sha256, sha256)

    def _open_alone(self, archive: Path, own: Path, is_empty: bool) -> CachedArchive:
        try:
            own.mkdir(parents=True)
            self._unpack(archive, own, _stamp(archive), is_empty)
            return self._describe(own, "")
        except BaseException as error:
            shutil.rmtree(own, ignore_errors=True)
            if isinstance(error, OSError):
                hint = "Check rights and free space."
                raise ArchiveError(f"{archive.name} could not be unpacked into {own}: {error}.", hint) from error
            raise

    def _unpack(self, archive: Path, target: Path, stamp: List[int], is_empty: bool) -> None:
        if not is_empty:
            unpack(archive, target, self.max_bytes, must_be_whole=not self.is_lenient)
        if _stamp(archive) != stamp:
            raise ArchiveError(f"{archive.name} changed while it was read.", "Register it again.")

    def _fill(self, archive: Path, sha256: str, stamp: List[int], is_empty: bool) -> None:
        """Unpack beside the place and rename; when another process was faster, its folder is the one."""
        partial, lock = self._new_partial()
        try:
            self._unpack(archive, partial, stamp, is_empty)
            # Refuse before the move: what cannot be served must not stay in the cache.
            self._describe(partial, sha256)
            names = [name for name, _ in files_below(partial)]
            # Before the folder, because a folder without its list counts as broken.
            with replacing_file(self._listing(sha256)) as out:
                out.write(json.dumps(names).encode())
            self._move_into_place(partial, sha256)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(lock)

    def _move_into_place(self, partial: Path, sha256: str) -> None:
        folder = self.root / sha256
        for _ in range(10):
            if folder.exists():
                if self._is_whole(sha256):
                    return
                broken = self._partial_name()
                os.rename(folder, broken)
                shutil.rmtree(broken, ignore_errors=True)
            try:
                os.rename(partial, folder)
            except OSError:
                # Another process put its own there since we looked.
                if not folder.exists():
                    raise
            else:
                return
        raise ArchiveError(f"{folder} could not be put in order.", "Remove it and register the archive again.")

    def _describe(self, folder: Path, sha256: str) -> CachedArchive:
        manifest = read_manifest(folder, must_be_whole=not self.is_lenient)
        if self.is_lenient and manifest.runtime not in RUNTIMES:
            raise ManifestError("Runtime is not defined or invalid.", f"It must be one of {', '.join(RUNTIMES)}.")
        warnings = []
        try:
            signature = load_signature(folder, manifest.signature_file, strict=True)
        except SignatureError as error:
            # A file in house form that is wrong is refused here; anything else under that name is none of ours.
            signature = load_signature(folder, manifest.signature_file)
            warnings.append(f"The signature is not used: {error}")
        return CachedArchive(folder, sha256, manifest, signature, load_config(folder, manifest), tuple(warnings))

    def _is_whole(self, sha256: str) -> bool:
        try:
            names = json.loads(self._listing(sha256).read_text())
            return all((self.root / sha256 / name).is_file() for name in names) and (self.root / sha256).is_dir()
        except (OSError, ValueError):
            return False

    def _listing(self, sha256: str) -> Path:
        return self.root / f"{sha256}.files"

    def _partial_name(self) -> Path:
        return self.root / (_PARTIAL + uuid.uuid4().hex)

    def _new_partial(self) -> Tuple[Path, int]:
        """Make a folder to unpack into, and hold its lock until the descriptor is closed."""
        while True:
            partial = self._partial_name()
            partial.mkdir()
            lock = _lock(partial)
            # None: another process took it for a leftover in the moment before we locked it.
            if lock is not None:
                return partial, lock

    def _remove_leftovers(self) -> None:
        for partial in self.root.glob(_PARTIAL + "*"):
            lock = _lock(partial)
            if lock is not None:
                shutil.rmtree(partial, ignore_errors=True)
                os.close(lock)

    def _digest(self, archive: Path, stamp: List[int]) -> str:
        key, remembered = str(archive.resolve()), self._remembered()
        known = remembered.get(key)
        if known is not None and known[:-1] == stamp:
            return str(known[-1])
        sha256 = hashlib.sha256()
        with open(archive, "rb", buffering=0) as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                sha256.update(chunk)
        if _stamp(archive) == stamp and time.time() - stamp[1] / 1e9 > _SETTLED_AFTER:
            # Two processes at once may lose one of their lines; that costs a hash, later.
            with replacing_file(self.root / "hashes.json") as out:
                out.write(json.dumps({**remembered, key: [*stamp, sha256.hexdigest()]}).encode())
        return sha256.hexdigest()

    def _remembered(self) -> Dict[str, List[object]]:
        try:
            remembered = json.loads((self.root / "hashes.json").read_text())
        except (OSError, ValueError):
            return {}
        return remembered if isinstance(remembered, dict) else {}


def writable_root(wanted: Path, spare: Path) -> Tuple[Path, str]:
    """Return the folder for a cache and "", or ``spare`` and why ``wanted`` is none.

    Containers run as users whose home is not there or not theirs.
    """
    try:
        root = wanted.expanduser().resolve()
        root.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows the user's home
        return spare, getattr(error, "strerror", None) or str(error)
    return (root, "") if os.access(str(root), os.W_OK | os.X_OK) else (spare, "It is read-only")


def _stamp(archive: Path) -> List[int]:
    status = archive.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _lock(folder: Path) -> Optional[int]:
    """Lock a folder and return the descriptor that holds it; None when somebody else does, or it is gone."""
    import fcntl

    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.is_dir():
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _environment(
    opened: CachedArchive, root: Path, installs: bool, downloads: bool, is_own: bool
) -> Dict[str, object]:
    """Return the interpreter of an archive that does not take the server's, and where its files are then.

    Args:
        installs: whether what it requires is installed on top of what the server has.
        downloads: whether an interpreter that is not here may be downloaded.
        is_own: whether its folder is its model's own, to be changed and removed.
    """
    name = opened.manifest.model_name
    try:
        needs = needs_of(opened.config, opened.manifest, opened.path, installs)
        if needs is None:
            return {}
        if is_own and needs.names_files:
            # What is installed from a folder that goes away must go with it.
            root = opened.path / ".environments"
        environment = environment_for(needs, root, lambda line: _tell(name, line), downloads)
        found = {"python": str(interpreter(environment)), "is_alone": needs.is_alone}
        if opened.config.get("useVenv") is not True:
            return found
        view = with_venv(opened.path, environment) if is_own else view_of(opened.path, environment, root)
    except EnvironmentFault as error:
        if any(key in opened.config for key in KEYS):
            error.fault = "own"
        raise about(error, name) from None
    return {**found, "path": str(view), "python": str(interpreter(view / "venv"))}


def _runtime(opened: CachedArchive, asked: str) -> Dict[str, object]:
    """Return the interpreter of an archive by its runtime, or by the one asked for; {} for the server's own."""
    runtime = asked or opened.manifest.runtime
    if runtime != "python3":  # python is the server's own, and there is no worker of any other
        return {}
    try:
        python = program_interpreter(runtime)
    except EnvironmentFault as error:
        raise about(error, opened.manifest.model_name) from None
    if python:
        _tell(opened.manifest.model_name, f"its runtime {runtime} is {python}")
    return {"python": python}


def _tell(name: str, line: str) -> None:
    """Tell of progress; the server puts it into its log."""
    print(f"{name}: {line}" if name else line, file=sys.stderr, flush=True)


def main(argv: Optional[List[str]] = None) -> int:
    """Fetch, verify and unpack one archive; print it as JSON, or ``{"error", "message", "hint"}`` and return 1."""
    parser = argparse.ArgumentParser(prog="python -m marserve.archive.cache", description=main.__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the cache")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--archive", type=Path, help="path of a file or folder")
    what.add_argument("--location", help="name in the store, or URL")
    parser.add_argument("--own", type=Path, help="new folder to unpack into, in place of the cache")
    parser.add_argument("--store", type=Path, help="the model store; downloads go there")
    parser.add_argument("--allowed-url", action="append", default=[], help="regular expression; may be repeated")
    parser.add_argument("--environments", type=Path, help="folder of environments; one with useVenv gets its own")
    parser.add_argument("--install", action="store_true", help="install what the archive requires, in one of them")
    parser.add_argument("--download-python", action="store_true", help="let uv download interpreters")
    parser.add_argument("--mms", action="store_true", help="refuse manifests and run python3 as Multi Model Server")
    parser.add_argument("--runtime", default="", help="runtime in the place of the manifest's")
    parser.add_argument("--lenient", action="store_true", help="take what TorchServe takes, junk too")
    parser.add_argument("--replace", action="store_true", help="download over a file of the same name")
    parser.add_argument(
        "--sign", action="store_true", help="sign the download for S3, with the keys of the environment"
    )
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, help="most bytes unpacked")
    parser.add_argument("--max-download", type=int, default=store.MAX_DOWNLOAD, help="most bytes of a download")
    parser.add_argument("--timeout", type=float, default=store.DOWNLOAD_TIMEOUT, help="longest silence, seconds")
    parser.add_argument("--nice", type=int, default=0, help="give way to the server by so much")
    args = parser.parse_args(argv)
    if args.nice:
        os.nice(args.nice)
    try:
        archive = args.archive
        if archive is None:
            archive = store.resolve(
                args.location, args.store, args.allowed_url, args.max_download, args.timeout, args.replace, args.sign
            )
        opened = Cache(args.root, args.max_bytes, args.lenient).open(archive, args.own)
        if args.mms:
            check_as_mms(opened.manifest)
        result = {"source": str(archive), **opened.to_json()}
        if args.environments is not None:
            is_own = opened.path == args.own
            found = _environment(opened, args.environments, args.install, args.download_python, is_own)
            result.update(found)
        if args.mms and "python" not in result:
            result.update(_runtime(opened, args.runtime))
        status = 0
    except ServeError as error:
        result = {"error": error.kind, "message": error.message, "hint": error.hint}
        result.update(model=error.model, fault=error.fault)
        status = 1
    except Exception as error:
        traceback.print_exc()
        result = {"error": ServeError.kind, "message": f"{type(error).__name__}: {error}", "hint": ""}
        status = 1
    # YAML knows dates and sets; JSON gets their text.
    sys.stdout.write(json.dumps(result, default=str) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
