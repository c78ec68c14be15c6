"""Finds the service in an archive and makes it ready: the entry that the worker's loop calls.

A handler is ``module``, ``module.py`` or ``module:function``. Looked for in this order: a file of the archive, a
built-in name (``BUILT_IN``, most of them of ``compat/ts``) or ``marserve.…:Class``, a module that is installed or
lies in a folder of the archive. Source: TorchServe ``ts/model_loader.py``, Multi Model Server
``mms/model_loader.py``; what they refuse for no reason (a class beside the service, ``initialize`` without an
argument) is taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List, Optional, Tuple

from marserve.archive.manifest import Manifest, handler_files, split_handler
from marserve.archive.signature import Signature, load_signature
from marserve.errors import LoadError, OutOfMemory, ServeError
from marserve.service.base import Service
from marserve.service.context import Context
from marserve.service.envelopes import ENVELOPES, wrapped
from marserve.service.inputs import Inputs
from marserve.service.metrics import use_store
from marserve.worker.coroutines import finished
from marserve.worker.faults import author_traceback, is_out_of_memory
from marserve.worker.steps import INFERENCE, POSTPROCESS, PREPROCESS, Steps, timed, timed_whole

_log = logging.getLogger(__name__)

#: The names under which old servers' handlers import them, ``ts`` among them.
COMPAT = str(Path(__file__).resolve().parents[1] / "compat")
#: What archives for Multi Model Server carry copies of; who has none of his own gets these.
TEMPLATES = str(Path(COMPAT) / "mms_template")
#: Handlers that an archive may name without carrying a file.
BUILT_IN = {
    "mxnet_service": "marserve.service.mxnet:MXNetService",
    "onnx_service": "marserve.service.onnx:OnnxService",
    "torch_service": "marserve.service.torch:TorchService",
    "base_handler": "ts.torch_handler.base_handler",
    "image_classifier": "ts.torch_handler.image_classifier",
    "image_segmenter": "ts.torch_handler.image_segmenter",
    "object_detector": "ts.torch_handler.object_detector",
    "text_classifier": "ts.torch_handler.text_classifier",
    "densenet_handler": "ts.torch_handler.densenet_handler",
    "dali_image_classifier": "ts.torch_handler.dali_image_classifier",
    "vllm_handler": "ts.torch_handler.vllm_handler",
    "trt_llm_handler": "ts.torch_handler.trt_llm_handler",
}
#: Modules of the base classes from before Multi Model Server 1.0.
_LEGACY = ("mms.model_service.", "ts.model_service.")
_TIMED_STEPS = (("preprocess", PREPROCESS), ("inference", INFERENCE), ("postprocess", POSTPROCESS))

Handle = Callable[[List[Dict[str, Any]], Context], object]


class Entry:
    """A service that is ready.

    Attributes:
        handle: takes rows and the context, returns a list with one element a row.
        check: refuses a single row by raising, None when there is nothing to check.
        is_async: whether ``handle`` is a coroutine function, whose batches run beside each other.
        describe: what serves, in words.
        service: the instance, or the module of a function.
    """

    __slots__ = ("check", "describe", "handle", "is_async", "service")

    def __init__(
        self, handle: Handle, describe: str, service: object, check: Optional[Callable[[Any], None]] = None
    ) -> None:
        self.handle = handle
        self.check = check
        self.is_async = inspect.iscoroutinefunction(handle)
        self.describe = describe
        self.service = service


def load_entry(
    folder: Path,
    manifest: Manifest,
    handler: str,
    context: Context,
    steps: Steps,
    envelope: str = "",
    style: str = "native",
) -> Entry:
    """Import the handler, create and initialize its service, and return the entry.

    Whoever calls has made ``folder`` the working directory and the first entry of ``sys.path`` (``stand_in``).

    Args:
        handler: from the request or the manifest; empty takes the manifest's.
        envelope: name of an envelope around every body, empty for none.
        style: see ``service/codec.py``.

    Raises:
        LoadError: no such handler, or the author's code raised; holds the author's traceback.
        OutOfMemory: memory ran out while the model was loaded.
        SignatureError: signature.json cannot be used.
    """
    name = handler or manifest.handler
    if not name:
        raise LoadError("The archive names no handler.", "Name one when packing (--handler) or registering.")
    signature = load_signature(folder, manifest.signature_file)
    use_store(context.metrics)
    module, wanted = _find_module(folder, name, takes_outside=style == "mms")
    target = getattr(module, wanted or "handle", None)
    if target is None and wanted:
        # Old servers fall back to the only class in silence, and archives in the wild rely on it.
        _log.warning("Handler %s: %s has no %r; its service class is used.", name, module.__name__, wanted)
    if callable(target) and not inspect.isclass(target):
        entry = _function_entry(target, module, name, context)
    else:
        cls = target if inspect.isclass(target) else _service_class(module, name)
        entry = _class_entry(cls, signature, name, context, steps)
    if envelope:
        if envelope not in ENVELOPES:
            raise LoadError(f"There is no envelope {envelope!r}.", f"Use one of {', '.join(ENVELOPES)}.")
        entry.handle = _enveloped(entry, envelope, style)
    if not entry.is_async:
        entry.handle = timed_whole(entry.handle, steps)
    return entry


def tell_forked(entry: Entry, context: Context) -> None:
    """Let a service know that this process was forked after ``initialize``, where it has the method ``after_fork``.

    Raises:
        LoadError, OutOfMemory: as from ``load_entry``.
    """
    after_fork = getattr(entry.service, "after_fork", None)
    if callable(after_fork):
        _guarded(entry.describe, lambda: after_fork(context))


def stand_in(folder: Path) -> None:
    """Make ``folder`` the working directory and the first place of imports, as services expect.

    The old servers' names come next, before site-packages: an old server that is installed too would bring a
    protocol that nobody here speaks.
    """
    os.chdir(folder)
    for place in (COMPAT, str(folder)):
        if place in sys.path:
            sys.path.remove(place)
        sys.path.insert(0, place)
    if TEMPLATES not in sys.path:
        sys.path.append(TEMPLATES)
    importlib.invalidate_caches()


def _find_module(folder: Path, handler: str, takes_outside: bool) -> Tuple[ModuleType, str]:
    """Import the module of a handler; return it and the name behind the colon.

    Args:
        takes_outside: whether an absolute path means a file anywhere on the machine, as in Multi Model Server.
    """
    module_part, wanted = split_handler(handler)
    for candidate in handler_files(handler):
        is_inside = not candidate.startswith("/") and ".." not in candidate.split("/")
        if is_inside and (folder / candidate).is_file():
            return _guarded(handler, partial(_import_file, folder, candidate)), wanted
    target = BUILT_IN.get(handler, handler if handler.startswith("marserve.") else "")
    if target:
        module_part, wanted = split_handler(target)
    name = module_part[:-3] if module_part.endswith(".py") else module_part
    if takes_outside and os.path.isabs(name):
        _append_path(os.path.dirname(name))
    name = name.rsplit("/", 1)[-1]
    if not _is_there(name) and not takes_outside and _is_there(f"ts.torch_handler.{module_part}"):
        name = f"ts.torch_handler.{module_part}"  # TorchServe serves every module beside its built-in handlers
    if not _is_there(name):
        here = ", ".join(sorted(path.name for path in folder.glob("*.py"))) or "none"
        raise LoadError(
            f"The handler {handler!r} is no Python file of the archive (these are: {here}), no installed module "
            f"and none of {', '.join(BUILT_IN)}.",
            "Pack the archive again with the handler's file, or name another handler.",
        )
    return _guarded(handler, partial(importlib.import_module, name)), wanted


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _append_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()


def _import_file(folder: Path, candidate: str) -> ModuleType:
    """Import a file of the archive under its own name, also where an installed module has the same one."""
    parts = candidate[: -len(".py")].split("/")
    if parts[-1] == "__init__":
        parts.pop()
    name = ".".join(parts)
    path = str(folder / candidate)
    present = sys.modules.get(name)
    if present is None or len(parts) > 1:
        return importlib.import_module(name)
    if getattr(present, "__file__", None) == path:
        return present
    # The name is taken, say by a module of the standard library that others still need: do not replace it.
    name = f"archive_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # as the import system does: a second try must not find half a module
        raise
    return module


def _guarded(handler: str, call: Callable[[], Any]) -> Any:
    """Return ``call()``; what the author's code raises becomes a LoadError with its traceback."""
    try:
        return call()
    except LoadError as error:
        error.traceback = error.traceback or author_traceback(error)
        raise
    except ServeError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error) or (isinstance(error, RuntimeError) and "CUDA" in str(error)):
            raise OutOfMemory(
                f"Memory ran out while {handler} was loaded: {error}.", "Use fewer workers or a smaller model."
            ) from error
        hint = "Correct the service and register the archive again."
        if isinstance(error, ModuleNotFoundError):
            is_compat = str(error.name).partition(".")[0] in ("ts", "mms")
            hint = f"Put {error.name!r} into the archive, or install it where the worker runs."
            if is_compat:
                hint = f"marserve has no {error.name!r}; the page about moving to it tells what is there instead."
        words = f"{type(error).__name__}: {error}"
        raise LoadError(f"{handler} cannot be loaded: {words}", hint, author_traceback(error)) from error


def _function_entry(function: Handle, module: ModuleType, handler: str, context: Context) -> Entry:
    """Return the entry of a bare function, which is called once with no data to initialize."""
    _guarded(handler, lambda: finished(function(None, context)))  # type: ignore[arg-type]
    return Entry(function, f"function {getattr(function, '__name__', 'handle')} of {module.__name__}", module)


def _enveloped(entry: Entry, envelope: str, style: str) -> Handle:
    """Return the entry's handle inside an envelope; what was written for TorchServe gets rows of its form."""
    if style != "torchserve" and not any(base.__module__.startswith("ts.") for base in type(entry.service).__mro__):
        return wrapped(entry.handle, envelope)
    module = importlib.import_module(f"ts.torch_handler.request_envelope.{envelope}")
    around: Any = _service_class(module, envelope)

    async def run_async(data: List[Dict[str, Any]], context: Context) -> object:
        own = around(None)  # it keeps things between its two steps, and other batches run beside this one
        own.context = context
        return own.format_output(await entry.handle(own.parse_input(data), context))  # type: ignore[misc]

    return run_async if entry.is_async else around(entry.handle).handle


def _service_class(module: ModuleType, handler: str) -> type:
    """Return the one class that the module itself defines and that looks like a service."""
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__]
    services = [cls for cls in own if _is_service(cls)]
    leaves = [cls for cls in services if not any(other is not cls and issubclass(other, cls) for other in services)]
    if len(leaves) == 1:
        return leaves[0]
    names = ", ".join(cls.__name__ for cls in leaves or own) or "none"
    what = "several services" if leaves else "no function handle(data, context) and no class with that method"
    raise LoadError(
        f"Expected only one class in custom service code or a function entry point: {handler} defines {what} "
        f"({names}).",
        "Leave one service in the file, or name the one to use: --handler file:Class.",
    )


def _is_service(cls: type) -> bool:
    steps = all(callable(getattr(cls, name, None)) for name, _ in _TIMED_STEPS)
    return steps or callable(getattr(cls, "handle", None))


def _class_entry(cls: type, signature: Optional[Signature], handler: str, context: Context, steps: Steps) -> Entry:
    """Create and initialize a service, and return its entry."""
    if not _is_service(cls):
        raise LoadError(
            f"{cls.__name__} of {handler} has neither handle(data, context) nor the steps it would consist of.",
            "Write handle(data, context), or preprocess, inference and postprocess with one argument each.",
        )
    service = _guarded(handler, partial(_create, cls, context))
    is_ours = isinstance(service, Service)
    if is_ours and signature is not None:
        service.inputs = Inputs(signature.inputs, is_batch_first=signature.form == "mms")
        service.output_names = [spec.name for spec in signature.outputs]
    initialize = getattr(service, "initialize", None)
    if initialize is not None:
        arguments = (context,) if _takes_argument(initialize) else ()
        _guarded(handler, lambda: finished(initialize(*arguments)))
    _time_steps(service, steps)
    handle = getattr(service, "handle", None) or _composed(service)
    entry = Entry(handle, f"class {cls.__name__} of {cls.__module__}", service)
    if is_ours and _has_check(service):
        entry.check = service.check
    return entry


def _create(cls: type, context: Context) -> Any:
    """Return an instance; a class from before Multi Model Server 1.0 is told about its model here."""
    if not any(base.__module__.startswith(_LEGACY) for base in cls.__mro__):
        return cls()
    properties = context.system_properties
    # By name: of Gluon's classes it is not the fourth.
    named = {"gpu": properties["gpu_id"]} if _takes(cls, "gpu") else {}
    return cls(context.model_name, properties["model_dir"], context.manifest, **named)


def _takes(call: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(call).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _has_check(service: Service) -> bool:
    """Whether ``check`` can refuse anything: one that the author wrote, or a signature that says what comes."""
    is_authors = not type(service).check.__module__.startswith("marserve.service.")
    return is_authors or (service.inputs is not None and service.inputs.can_refuse)


def _takes_argument(initialize: Callable[..., Any]) -> bool:
    """Whether ``initialize`` takes the context; an early SageMaker toolkit's does not."""
    try:
        parameters = inspect.signature(initialize).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in parameters)


def _time_steps(service: object, steps: Steps) -> None:
    """Put the three inner steps' spans on record, whoever calls them."""
    for name, step in _TIMED_STEPS:
        call = getattr(service, name, None)
        if callable(call):
            # A class with __slots__ is served all the same; its time is all told as inference.
            with suppress(AttributeError):
                setattr(service, name, timed(call, step, steps))


def _composed(service: Any) -> Handle:
    """Return a handle for a class that has the three inner steps alone."""

    def handle(data: List[Dict[str, Any]], context: Context) -> object:
        return service.postprocess(service.inference(service.preprocess(data)))

    return handle
