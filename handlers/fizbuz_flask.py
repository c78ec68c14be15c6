"""The FizBuz archive inside an ordinary Flask application, without a marserve server.

::

    gunicorn --workers 2 'handlers.fizbuz_flask:application("model-store/fizbuz_package.mar")'

No archive holds this file: it takes the server's place. It answers for any archive whose service returns JSON.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request

import marserve
from marserve import PredictionException
from marserve.errors import RequestError, ServeError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes; as much as the server takes unless told otherwise.
LARGEST_BODY = 6_553_500

#: gunicorn's own log, so that what is said here stands where its users look.
_log = logging.getLogger("gunicorn.error")


class CurrentArchive:
    """An archive that is loaded anew when its file has changed: looked for between requests, by each process.

    One request runs at a time, because a service owns its process's working directory; more processes run more. So
    when the next archive is there, nobody is inside the one before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._turn = threading.Lock()
        self._seen = self._stamp()
        self._archive = marserve.load(self.path)

    def predict(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Any:
        """Return the answer of the archive as its file is now; raises what ``LoadedArchive.predict`` does."""
        with self._turn:
            self._refresh()
            return self._archive.predict(body, content_type=content_type, headers=headers)

    def close(self) -> None:
        """Remove what was unpacked."""
        self._archive.close()

    def _refresh(self) -> None:
        """Load the file if it is another one than before; one that cannot be loaded leaves everything as it is."""
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen  # before the loading, so that a broken file is tried once, and again when it changes
        try:
            fresh = marserve.load(self.path)
        except ServeError as error:
            _log.warning("%s has changed and cannot be loaded; the one before answers on. %s", self.path, error)
            return
        self._archive.close()
        self._archive = fresh
        _log.info("%s has changed and was loaded anew.", self.path)

    def _stamp(self) -> tuple[int, ...]:
        """Return what is another for another file; () while there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns


def application(path: str) -> Flask:
    """Return the application that answers for the archive at ``path``, at ``/predictions/`` and the file's name.

    Raises:
        ArchiveError, LoadError: the archive cannot be loaded; gunicorn then ends.
    """
    archive = CurrentArchive(Path(path))
    atexit.register(archive.close)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY

    @app.post(f"/predictions/{archive.path.stem}")
    def predict() -> Response:
        try:
            answer = archive.predict(request.get_data(), request.content_type or "", dict(request.headers))
        except ServeError as error:
            return refusal(error)
        return Response(as_json(answer), content_type="application/json")

    @app.get("/ping")
    def ping() -> Response:
        return Response(as_json({"status": "Healthy"}) + "\n", content_type="application/json")

    return app


def refusal(error: ServeError) -> Response:
    """Return an error as the server answers it; what is the client's fault it is told, the rest is in the log."""
    told = {"code": 500, "type": error.kind, "message": error.message, "hint": error.hint}
    if isinstance(error, PredictionException):
        told["code"] = error.error_code
    elif isinstance(error, RequestError):
        told["code"] = 400
    else:
        _log.error("%s", error)
        told["hint"] = "The log holds the traceback."
    body = as_json({name: value for name, value in told.items() if value}) + "\n"
    return Response(body, int(told["code"]), content_type="application/json")


def as_json(value: object) -> str:
    """Return compact JSON, as the server writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
