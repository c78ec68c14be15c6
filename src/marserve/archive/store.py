"""Where archives come from: a model store, ``file://``, or an allowed http(s) URL."""

from __future__ import annotations

import contextlib
import difflib
import http.client
import os
import posixpath
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, List, Optional, Sequence

from marserve import __version__
from marserve.archive.reader import archive_format
from marserve.archive.s3 import SignedRequests, credentials_of
from marserve.archive.urls import matching
from marserve.archive.writer import replacing_file
from marserve.errors import ArchiveExists, BadRequest, ConfigError, DownloadError, ModelNotFound, ServeError, about

#: Most bytes of a downloaded archive, where the caller sets no other limit.
MAX_DOWNLOAD = 64 * 2**30
#: Longest silence of an origin, seconds.
DOWNLOAD_TIMEOUT = 60.0
#: Longest name of a download, bytes: file systems take 255, and what is not complete yet has a longer one.
_LONGEST_NAME = 220

_ARCHIVE_SUFFIXES = (".mar", ".model", ".tar.gz", ".tgz")
_CHUNK = 2**20
#: What S3 calls its fault; a plain 403 would not tell a wrong key from a wrong region.
_S3_FAULT = re.compile(rb"<Code>(\w+)</Code>")
_MOST_OF_A_FAULT = 65_536


@dataclass(frozen=True)
class StoredArchive:
    """One archive of a store: file name, path, bytes, and ``mar``, ``tgz`` or ``folder``."""

    name: str
    path: Path
    size: int
    format: str


def list_store(store: Path) -> List[StoredArchive]:
    """Return the archives and folders at the top of a store, sorted by name.

    Raises:
        ConfigError: the store is no folder.
    """
    if not store.is_dir():
        raise ConfigError(f"The model store {store} is no folder.", "Create it, or name another one.")
    found = []
    for path in sorted(store.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            found.append(StoredArchive(path.name, path, size, "folder"))
        elif path.name.endswith(_ARCHIVE_SUFFIXES):
            kind = "tgz" if path.name.endswith("gz") else "mar"
            found.append(StoredArchive(path.name, path, path.stat().st_size, kind))
    return found


def resolve(
    location: str,
    store: Optional[Path],
    allowed_urls: Sequence[str],
    max_bytes: int = MAX_DOWNLOAD,
    timeout: float = DOWNLOAD_TIMEOUT,
    replace: bool = False,
    sign: bool = False,
) -> Path:
    """Return the local path of what a user names; an http(s) URL is downloaded into the store.

    Args:
        location: a name in the store (folders may be nested), a ``file://`` or http(s) URL.
        allowed_urls: regular expressions; a URL must match one of them as a whole, without regard to case.
        max_bytes: most bytes of a download.
        timeout: longest silence of the origin, seconds.
        replace: download over a file that the store has already.
        sign: sign the download for S3, with the keys of the environment.

    Raises:
        ModelNotFound: nothing there, ``..`` in the name, no store, or a URL that is not allowed.
        ArchiveExists: the store has a file of the URL's name.
        ArchiveError: the download failed.
    """
    scheme = re.match(r"^([A-Za-z][A-Za-z0-9+.-]*)://", location)
    if scheme is None:
        return find(location, store)
    check_allowed(location, allowed_urls)
    if scheme.group(1).lower() == "file":
        return _file_of_url(location)
    if store is None:
        raise ModelNotFound("Model store has not been configured.", "Name one: --model-store FOLDER.")
    return download(location, store, allowed_urls, max_bytes, timeout, replace, sign)


def find(location: str, store: Optional[Path]) -> Path:
    """Return the file or folder of a store that a name means.

    A leading ``/`` is relative to the store, as in Multi Model Server; an absolute path whose base name is in the
    store means that one, as in TorchServe.

    Raises:
        ModelNotFound: see ``resolve``.
    """
    if not location:
        raise ModelNotFound("empty url", "Name an archive of the model store, or a URL.")
    _refuse_dots(location)
    if store is None:
        raise ModelNotFound("Model store has not been configured.", "Name one: --model-store FOLDER.")
    nested = location.strip("/")
    for name in (nested, posixpath.basename(nested)):
        # A name that is too long for a file is none; Path.exists would raise.
        if name and name != "." and "\0" not in name and os.path.exists(store / name):
            return store / name
    missing = ModelNotFound(f"Model not found at: {location}", _suggestion(location, store))
    missing.fault = "store"
    raise about(missing, location)


def check_allowed(url: str, allowed_urls: Sequence[str]) -> None:
    """Raise ModelNotFound unless a URL matches one of the expressions as a whole."""
    if next(matching(url, allowed_urls, "allowed_urls"), None) is None:
        raise ModelNotFound(
            f"Given URL {url} does not match any allowed URL(s)",
            "The operator can add it to the setting allowed_urls.",
        )


def download(
    url: str,
    folder: Path,
    allowed_urls: Sequence[str],
    max_bytes: int = MAX_DOWNLOAD,
    timeout: float = DOWNLOAD_TIMEOUT,
    replace: bool = False,
    sign: bool = False,
) -> Path:
    """Download an archive into a folder and return its path; arguments and errors as for ``resolve``."""
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    is_odd = name.startswith(".") or "\\" in name or any(ord(letter) < 32 for letter in name)
    if not name or is_odd or len(os.fsencode(name)) > _LONGEST_NAME:
        raise BadRequest(f"The URL {url} ends in no usable file name.", "Use one that ends in NAME.mar.")
    target = folder / name
    if target.exists() and not replace:
        raise ArchiveExists(
            f"Model file already exists {name}", f"Register it as url={name}, or remove it from the store."
        )
    signing = [SignedRequests(credentials_of(os.environ, url))] if sign else []
    opener = urllib.request.build_opener(_AllowedRedirects(allowed_urls), *signing)
    request = urllib.request.Request(url, headers={"User-Agent": f"marserve/{__version__}"})
    try:
        with replacing_file(target) as out:
            with opener.open(request, timeout=timeout) as answer:
                _copy(answer, out, max_bytes)
            out.flush()
            archive_format(Path(out.name))
    except (OSError, http.client.HTTPException, ValueError) as error:
        failed = DownloadError(f"Failed to download archive from: {url}", _reason(error))
        # What it is about, as Multi Model Server tells it.
        code = f", code: {error.code}" if isinstance(error, urllib.error.HTTPError) else ""
        raise about(failed, url + code) from error
    return target


def _copy(answer: http.client.HTTPResponse, out: IO[bytes], max_bytes: int) -> None:
    declared = answer.headers.get("Content-Length")
    total = 0
    while True:
        chunk = answer.read(_CHUNK)
        if not chunk:
            break
        total += len(chunk)
        if total > max_bytes:
            raise ValueError(f"it is larger than the limit of {max_bytes} bytes")
        out.write(chunk)
    # Reading in pieces, http.client does not tell when the connection broke.
    if declared is not None and declared.isdigit() and total != int(declared):
        raise ValueError(f"the connection broke after {total} of {declared} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with contextlib.suppress(OSError, http.client.HTTPException), error:
            told = _S3_FAULT.search(error.read(_MOST_OF_A_FAULT))
            if told:
                return f"The origin answered {error.code} {told[1].decode()}."
        return f"The origin answered {error.code} {error.reason}."
    return f"The reason: {getattr(error, 'reason', None) or error}."


class _AllowedRedirects(urllib.request.HTTPRedirectHandler):
    """Holds each step of a redirection against the allowed URLs: else the first one would open all others."""

    def __init__(self, allowed_urls: Sequence[str]) -> None:
        self._allowed_urls = allowed_urls

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Optional[urllib.request.Request]:
        check_allowed(newurl, self._allowed_urls)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _file_of_url(url: str) -> Path:
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path)
    _refuse_dots(path)
    if parts.netloc not in ("", "localhost") or not path or "\0" in path or not os.path.exists(path):
        raise ModelNotFound(f"Model not found at: {url}", "file:// takes an absolute path: file:///folder/name.mar")
    return Path(path)


def _refuse_dots(location: str) -> None:
    if ".." in re.split(r"[/\\]", location):
        raise ModelNotFound(
            f"Relative path is not allowed in url: {location}", "Name the archive as it lies in the model store."
        )


def _suggestion(location: str, store: Path) -> str:
    try:
        names = [archive.name for archive in list_store(store)]
    except (ServeError, OSError):
        return f"The model store {store} cannot be read."
    near = difflib.get_close_matches(posixpath.basename(location), names, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"The model store has: {', '.join(names[:10])}." if names else "The model store is empty."
