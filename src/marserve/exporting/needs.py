"""What each form of an exported model is called, and what has to be installed to make it; imports nothing of that."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

from marserve.errors import ConfigError


class Form(NamedTuple):
    """One form of an exported model.

    Attributes:
        suffix: of its file; says to a service how to load it.
        libraries: modules that are imported to write and to check it, each with the extra that installs it.
    """

    suffix: str
    libraries: tuple[tuple[str, str], ...] = ()


_ONNX = (("onnx", "train"), ("onnxscript", "train"), ("onnxruntime", "onnx"))

#: By the name that ``--to`` takes.
FORMS = {
    "onnx": Form(".onnx", _ONNX),
    "torchscript": Form(".pt"),
    "pt2": Form(".pt2"),
    "safetensors": Form(".safetensors", (("safetensors", "torch"),)),
}


def check_installed(form: str) -> None:
    """Refuse an export whose libraries are not all there, before minutes go into its first half.

    Raises:
        ConfigError: names the modules that are missing, and the extras that install them.
    """
    wanted = (("torch", "torch"), *FORMS[form].libraries)
    missing = [(module, extra) for module, extra in wanted if find_spec(module) is None]
    if missing:
        modules = ", ".join(module for module, _ in missing)
        extras = ",".join(sorted({extra for _, extra in missing}))
        raise ConfigError(
            f"An export to {form} needs what is not installed: {modules}.", f"pip install 'marserve[{extras}]'"
        )
