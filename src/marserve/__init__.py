"""marserve serves ``.mar`` archives: this is its one public face, held by tests/contract/test_face.py.

The face is lazy (PEP 562): workers on old interpreters import this package with nothing but the standard
library, so a name is imported only when somebody asks for it.
"""

from typing import TYPE_CHECKING, List

__version__ = "0.1.0"

__all__ = ["Context", "InvalidData", "LoadedArchive", "PredictionException", "Service", "__version__", "load"]

if TYPE_CHECKING:
    from marserve.errors import InvalidData, PredictionException
    from marserve.service.base import Service
    from marserve.service.context import Context
    from marserve.worker.local import LoadedArchive, load

_HOMES = {
    "Context": "marserve.service.context",
    "InvalidData": "marserve.errors",
    "LoadedArchive": "marserve.worker.local",
    "PredictionException": "marserve.errors",
    "Service": "marserve.service.base",
    "load": "marserve.worker.local",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> List[str]:
    return list(__all__)
