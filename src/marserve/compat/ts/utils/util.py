"""Labels of classes, configuration files, classes of modules, backends of ``torch.compile``."""

from __future__ import annotations

import enum
import functools
import inspect
import json
import logging
import os
import re
import warnings
from types import ModuleType
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Type

from marserve.errors import PredictionException

__all__ = [
    "CLEANUP_REGEX",
    "PT2Backend",
    "PredictionException",
    "check_valid_pt2_backend",
    "deprecated",
    "get_yaml_config",
    "list_classes_from_module",
    "load_label_mapping",
    "map_class_to_label",
]

logger = logging.getLogger(__name__)

#: Tags and entities of HTML.
CLEANUP_REGEX = re.compile(r"<.*?>|&(?:#x[0-9a-f]{1,6}|#\d{1,6}|[a-z0-9]+);")


class PT2Backend(str, enum.Enum):
    """Backends of ``torch.compile`` that a model's configuration may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def check_valid_pt2_backend(backend: str) -> bool:
    """Return whether ``backend`` is one of ``PT2Backend``; the log says when not."""
    is_known = any(backend == each.value for each in PT2Backend)
    if not is_known:
        known = ", ".join(each.value for each in PT2Backend)
        logger.warning("%s is not a supported backend; use one of %s.", backend, known)
    return is_known


def list_classes_from_module(module: ModuleType, parent_class: Optional[Type[Any]] = None) -> List[Type[Any]]:
    """Return the classes that a module itself defines, by name; with ``parent_class`` only those below it."""
    own = [each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__]
    return own if parent_class is None else [each for each in own if issubclass(each, parent_class)]


def load_label_mapping(mapping_file_path: str) -> Optional[Dict[str, str]]:
    """Return the labels of ``index_to_name.json`` by class number as text; None without the file.

    A label is a text or a list whose last element is it; ``object_type_names`` lists all of them in order.

    Raises:
        ValueError: the file holds something else.
    """
    if not os.path.isfile(mapping_file_path):
        logger.warning("%s is not there: classes are called by their numbers.", mapping_file_path)
        return None
    with open(mapping_file_path, encoding="utf-8") as file:
        mapping = json.load(file)
    if not isinstance(mapping, dict):
        raise ValueError(f"{mapping_file_path} must be a JSON object of labels by class number.")
    names = mapping.get("object_type_names")
    if isinstance(names, list):
        return {str(index): name for index, name in enumerate(names)}
    labels = {key: value[-1] if isinstance(value, list) and value else value for key, value in mapping.items()}
    for key, label in labels.items():
        if not isinstance(label, str):
            raise ValueError(f"{mapping_file_path}: the label of {key} must be a text or a list of texts.")
    return labels


def map_class_to_label(
    probs: List[Any],
    mapping: Optional[Dict[str, str]] = None,
    lbl_classes: Optional[Iterable[Sequence[int]]] = None,
) -> List[Dict[str, Any]]:
    """Return one dict a row: the probability, or whatever stands in its place, by label.

    Args:
        probs: rows of values.
        mapping: labels by class number as text; a class without one, and every class without a mapping, is
            called by its number.
        lbl_classes: the class of each value; None for their positions.
    """
    if not isinstance(probs, list):
        raise TypeError(f"Expected the rows of values as a list, got {type(probs).__name__}.")
    if mapping is not None and not isinstance(mapping, dict):
        raise TypeError(f"Expected the labels as a dict, got {type(mapping).__name__}.")
    labels = mapping or {}
    classes = [range(len(row)) for row in probs] if lbl_classes is None else lbl_classes
    return [
        {labels.get(str(number), str(number)): value for number, value in zip(numbers, row)}
        for numbers, row in zip(classes, probs)
    ]


def get_yaml_config(yaml_file_path: str) -> Any:
    """Return the content of a YAML file."""
    import yaml

    with open(yaml_file_path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def deprecated(
    version: object, replacement: str = "", klass: Type[Warning] = PendingDeprecationWarning
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that warns when the function is called."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            where = f"; use {replacement}" if replacement else ""
            warnings.warn(f"{function.__name__} is deprecated since {version}{where}.", klass, stacklevel=2)
            return function(*args, **named)

        return call

    return decorate
