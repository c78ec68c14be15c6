"""An archive without a server, in a notebook or a test: ``marserve.load("fizbuz.mar").predict({"input.1": 14})``.

Requests take the road that they take in a worker: body, decoding, check, service, encoding, answer.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Type, Union

import marserve
from marserve import errors
from marserve.archive.config import load_config
from marserve.archive.manifest import Manifest, manifest_root, read_manifest
from marserve.archive.reader import archive_format, unpack
from marserve.archive.signature import Signature, load_signature
from marserve.archive.sink import MAX_BYTES
from marserve.errors import HandlerFault, LoadError, PredictionException, ServeError
from marserve.service.codec import NATIVE, decode, encode
from marserve.service.context import Context, RequestInfo
from marserve.worker.batch import Outcome, run_batch
from marserve.worker.coroutines import finished
from marserve.worker.faults import Failure
from marserve.worker.loader import COMPAT, TEMPLATES, Entry, load_entry, stand_in
from marserve.worker.steps import NoSteps


def load(
    path: Union[str, Path],
    *,
    gpu_id: Optional[int] = None,
    batch_size: int = 1,
    model_config: Optional[Dict[str, Any]] = None,
) -> LoadedArchive:
    """Load an archive into this process.

    Args:
        path: a ``.mar`` file, or a folder in archive form, which is used where it lies.
        gpu_id: the GPU to run on; None for the CPU.
        batch_size: most requests that the service gets at once.
        model_config: takes the place of the archive's ``model-config.yaml``.

    Raises:
        ArchiveError: the archive cannot be read.
        LoadError: its service cannot be loaded; ``traceback`` is the author's.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; 1 is the least.")
    archive = Path(path).resolve()
    unpacked = None
    if archive_format(archive) != "folder":
        unpacked = Path(tempfile.mkdtemp(prefix="marserve-")).resolve()
    try:
        if unpacked is not None:
            unpack(archive, unpacked, MAX_BYTES)
        folder = manifest_root(unpacked or archive)
        return LoadedArchive(folder, unpacked, archive.stem, gpu_id, batch_size, model_config)
    except BaseException:
        if unpacked is not None:
            shutil.rmtree(unpacked, ignore_errors=True)
        raise


class LoadedArchive:
    """A service in this process. Not for several threads at once: services own the working directory.

    Attributes:
        manifest: the archive's manifest.
        signature: its signature, None without one.
        service: the author's instance, or the module of a function.
        context: what the service is told.
    """

    def __init__(
        self,
        folder: Path,
        unpacked: Optional[Path],
        name: str,
        gpu_id: Optional[int],
        batch_size: int,
        model_config: Optional[Dict[str, Any]],
    ) -> None:
        self.manifest: Manifest = read_manifest(folder)
        self.signature: Optional[Signature] = load_signature(folder, self.manifest.signature_file)
        self.context = Context(
            self.manifest.model_name or name,
            str(folder),
            self.manifest.raw,
            batch_size,
            gpu_id,
            marserve.__version__,
            model_yaml_config=load_config(folder, self.manifest) if model_config is None else model_config,
            thread_count=0,  # the process is somebody else's: its threads stay as they are
        )
        self._batch_size = batch_size
        self._unpacked = unpacked
        self._home = _Home(folder)
        self._steps = NoSteps()
        with self._home.entered():
            self._entry: Optional[Entry] = load_entry(folder, self.manifest, "", self.context, self._steps)
        self.service = self._entry.service

    def predict(
        self, value: object, *, content_type: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Any:
        """Send one request and return its answer as a client sees it: JSON as values, text as str, else bytes.

        Args:
            value: bytes and text are the body; everything else, numpy arrays too, is sent as JSON.
            content_type: of bytes or text; default ``application/octet-stream`` and ``text/plain``.
            headers: of the request.

        Raises:
            InvalidData: the signature or the service refuses the request.
            PredictionException: the service answers with a code of its own.
            HandlerFault: the service failed; the message holds the author's traceback.
        """
        return self._answers([_request(value, content_type, headers, b"False")])[0]

    def explain(
        self, value: object, *, content_type: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Any:
        """Ask for an explanation instead of a prediction; as ``predict``."""
        return self._answers([_request(value, content_type, headers, b"True")])[0]

    def predict_batch(self, values: Sequence[object], *, content_type: Optional[str] = None) -> List[Any]:
        """Send requests together, ``batch_size`` at a time; an answer that is an error stands in its place."""
        requests = [_request(value, content_type, None, b"False") for value in values]
        return self._answers(requests, is_raising=False)

    def close(self) -> None:
        """Let the service go and remove what was unpacked."""
        self._entry = None
        self.service = None
        self._home.modules.clear()
        if self._unpacked is not None:
            shutil.rmtree(self._unpacked, ignore_errors=True)
            self._unpacked = None

    def __enter__(self) -> LoadedArchive:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _answers(self, requests: Sequence[RequestInfo], is_raising: bool = True) -> List[Any]:
        if self._entry is None:
            raise LoadError("The archive is closed.", "Load it again: marserve.load(path).")
        outcomes: List[Outcome] = []
        with self._home.entered():
            for at in range(0, len(requests), self._batch_size):
                batch = requests[at : at + self._batch_size]
                outcomes += self._run(self._entry, batch)
        answers = [_answer(outcome) for outcome in outcomes]
        for answer in answers if is_raising else ():
            if isinstance(answer, ServeError):
                raise answer
        return answers

    def _run(self, entry: Entry, batch: Sequence[RequestInfo]) -> List[Outcome]:
        if not entry.is_async:
            return run_batch(entry, self.context, batch, NATIVE, self._steps)
        from marserve.worker import asynchronous

        outcomes: List[Outcome] = finished(asynchronous.run_batch(entry, self.context, batch, NATIVE, self._steps))
        return outcomes


def _request(
    value: object, content_type: Optional[str], headers: Optional[Mapping[str, str]], explain: bytes
) -> RequestInfo:
    body, natural_type = encode(value, NATIVE)
    kind = natural_type if content_type is None else content_type.encode("latin-1")
    flat = [text.encode("latin-1") for pair in (headers or {}).items() for text in pair]
    return RequestInfo("local", flat, (b"explain", explain, b"url_path", b""), [(b"body", kind, body)])


def _answer(outcome: Outcome) -> Any:
    """Return what a client gets: the decoded body, or the error."""
    if outcome.error is not None:
        return _error(outcome.error)
    value = decode([(b"body", outcome.content_type, outcome.body)])["body"]
    return bytes(value) if isinstance(value, bytearray) else value


def _error(failure: Failure) -> ServeError:
    """Return the exception that a failure stands for; the traceback is shown where there is one."""
    if failure.kind == PredictionException.kind:
        return PredictionException(failure.message, failure.code)
    hint = f"\n\n{failure.traceback}" if failure.traceback else failure.hint
    if failure.kind == HandlerFault.kind:
        return HandlerFault(failure.message, hint, failure.traceback, failure.reason)
    cls = getattr(errors, failure.kind, ServeError)  # a kind is the name of its class
    found: ServeError = cls(failure.message, hint)
    return found


class _Home:
    """The surroundings that a service expects while it runs, and the modules that it brought.

    Its working directory, its folder on ``sys.path``, and its own modules. Outside they are put away, so that two
    archives whose files have the same names do not get each other's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.modules: Dict[str, ModuleType] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Stand in the folder for a while, then leave everything as it was."""
        before = os.getcwd()
        path = list(sys.path)
        hidden = self._hide()
        sys.modules.update(self.modules)
        count = len(sys.modules)
        stand_in(self._folder)
        try:
            yield
        finally:
            os.chdir(before)
            sys.path[:] = path
            if len(sys.modules) != count:  # the service has imported something
                self.modules.update(_take(_names_below(str(self._folder)) | _names_below(COMPAT)))
            for name in self.modules:
                sys.modules.pop(name, None)
            sys.modules.update(hidden)

    def _hide(self) -> Dict[str, ModuleType]:
        """Put away the process's modules that bear the names of the archive's, and return them."""
        if not self.modules:
            places = (self._folder, Path(COMPAT), Path(TEMPLATES))
            return _take({name for place in places for name in _own_names(place)})
        return {name: sys.modules.pop(name) for name in self.modules if name in sys.modules}


def _own_names(folder: Path) -> Set[str]:
    """Return the names that an archive's files would have as modules; those of the standard library stay."""
    names = {entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or entry.is_dir()}
    return names - set(getattr(sys, "stdlib_module_names", sys.builtin_module_names)) - {"marserve"}


def _take(names: Set[str]) -> Dict[str, ModuleType]:
    """Remove modules, with what lies below them, from ``sys.modules`` and return them."""
    taken = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in names}
    for name in taken:
        del sys.modules[name]
    return taken


def _names_below(folder: str) -> Set[str]:
    """Return the top names of the loaded modules whose file lies in ``folder``."""
    inside = folder + os.sep
    files = ((name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items()))
    return {name.partition(".")[0] for name, file in files if isinstance(file, str) and file.startswith(inside)}
