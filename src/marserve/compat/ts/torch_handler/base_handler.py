"""``BaseHandler``: loads the weights of an archive and takes a batch through three steps."""

from __future__ import annotations

import abc
import importlib
import logging
import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

from ..handler_utils.timer import timed
from ..utils.util import list_classes_from_module, load_label_mapping
from .compiling import optimised
from .devices import choose_device
from .weights import (
    is_aot_compiled,
    is_session,
    load_exported,
    load_shared_library,
    load_torchscript,
    run_session,
    setup_ort_session,
)

__all__ = ["PROFILER_AVAILABLE", "BaseHandler", "setup_ort_session"]

logger = logging.getLogger(__name__)

PROFILER_AVAILABLE = True
#: Where the profiler's traces go, one folder a model.
PROFILER_FOLDER = "/tmp/pytorch_profiler"


class BaseHandler(abc.ABC):  # noqa: B024 - its originals are, and subclasses name ABC beside it
    """Serves a model that takes a tensor ``(batch, …)`` and gives one; subclasses override the steps.

    Attributes:
        model: the module, in evaluation mode, or an onnxruntime session.
        mapping: labels of ``index_to_name.json`` by class number as text, None without the file.
        device: where the model is.
        map_location: the kind of ``device``.
        initialized: whether ``initialize`` has run.
        context: that of the batch before or now, None before the first.
        explain: whether an explanation was asked for at least once.
        profiler_args: arguments for ``torch.profiler.profile``.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: Optional[Dict[str, str]] = None
        self.device: Any = None
        self.initialized: Optional[bool] = False
        self.context: Any = None
        self.model_pt_path: Optional[str] = None
        self.manifest: Any = None
        self.map_location: Optional[str] = None
        self.explain = False
        self.target = 0
        self.profiler_args: Dict[str, Any] = {}
        self.model_yaml_config: Dict[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Choose a device and load the model and its labels.

        Raises:
            RuntimeError: the archive holds no weights that can be loaded.
            ValueError: the model file defines no model, or several.
        """
        self.model_yaml_config = getattr(context, "model_yaml_config", None) or {}
        properties = context.system_properties
        self.map_location, self.device = choose_device(properties.get("gpu_id"))
        self.manifest = context.manifest
        section = self.manifest["model"]
        folder = properties.get("model_dir")
        weights = section.get("serializedFile")
        self.model_pt_path = os.path.join(folder, weights) if weights else None
        if section.get("modelFile"):
            self.model = self._load_pickled_model(folder, section["modelFile"], self.model_pt_path)
            # Not by what they return: models in the wild override train, which eval calls, and return nothing.
            self.model.to(self.device)
            self.model.eval()
        else:
            self.model = self._load_weights(self.model_pt_path or "")
        self.model = optimised(self.model, self.device, self.model_yaml_config)
        self.mapping = load_label_mapping(os.path.join(folder, "index_to_name.json"))
        self.initialized = True

    def _load_weights(self, path: str) -> Any:
        """Return the model of a file that needs no class beside it."""
        if path.endswith((".pt", ".pth")):
            model = self._load_torchscript_model(path)
            model.eval()
            return model
        if path.endswith(".onnx"):
            return setup_ort_session(path, str(self.map_location))
        if path.endswith(".pt2"):
            return load_exported(path, self.device, self._use_torch_export_aot_compile())
        if path.endswith(".so") and self._use_torch_export_aot_compile():
            return self._load_torch_export_aot_compile(path)
        raise RuntimeError("No model weights could be loaded")

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return load_torchscript(model_pt_path, self.device)

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        if self.map_location == "cuda":
            torch.cuda.set_device(self.device)  # the library is loaded onto the current one
        return load_shared_library(model_so_path, str(self.map_location))

    def _use_torch_export_aot_compile(self) -> bool:
        return is_aot_compiled(self.model_yaml_config)

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: Optional[str]) -> Any:
        """Return an instance of the one class of ``model_file``, with the weights of a state dict if there is one."""
        if not os.path.isfile(os.path.join(model_dir, model_file)):
            raise RuntimeError(f"Missing the {model_file} file")
        module = importlib.import_module(model_file.split(".")[0])
        classes = list_classes_from_module(module)
        if len(classes) > 1:
            # Helper classes beside the model do no harm.
            classes = list_classes_from_module(module, torch.nn.Module)
        if len(classes) != 1:
            raise ValueError(f"Expected only one class as model definition. {classes}")
        model = classes[0]()
        if model_pt_path:
            model.load_state_dict(torch.load(model_pt_path, map_location=self.device))
        return model

    @timed
    def preprocess(self, data: Any) -> Any:
        """Return the batch as a tensor on the model's device."""
        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model's output, without gradients."""
        if is_session(self.model):
            return run_session(self.model, data)
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """Return a list with one answer a request."""
        return data.tolist()

    def handle(self, data: List[Any], context: Any) -> Any:
        """Run the three steps on a batch, or explain or describe if its first request asks for that."""
        return self.handle_by(lambda rows: self.postprocess(self.inference(self.preprocess(rows))), data, context)

    def handle_by(self, predict: Callable[[List[Any]], Any], data: List[Any], context: Any) -> Any:
        """Handle a batch whose predictions ``predict`` makes, and report how long that took.

        The environment's ``ENABLE_TORCH_PROFILER`` has every batch profiled.
        """
        began = time.perf_counter()
        self.context = context
        if os.environ.get("ENABLE_TORCH_PROFILER"):
            if self.manifest is None:  # an initialize of the author's own
                self.manifest = context.manifest
            output, _ = self._infer_with_profiler(data=data)
        elif self._is_describe():
            output = [self.describe_handle()]
        elif self._is_explain():
            output = self.explain_handle(self.preprocess(data), data)
        else:
            output = predict(data)
        spent = round((time.perf_counter() - began) * 1000, 2)
        context.metrics.add_time("HandlerTime", spent, None, "ms")
        return output

    def _infer_with_profiler(self, data: List[Any]) -> Tuple[Any, Any]:
        """Return the output for a batch, and the profile whose trace was written."""
        with profile(**self._profiler_arguments()) as found:
            with record_function("preprocess"):
                prepared = self.preprocess(data)
            if self._is_explain():
                with record_function("explain"):
                    output = self.explain_handle(prepared, data)
            else:
                with record_function("inference"):
                    output = self.inference(prepared)
                with record_function("postprocess"):
                    output = self.postprocess(output)
        logger.info(found.key_averages().table(sort_by="cpu_time_total", row_limit=10))
        return output, found

    def _profiler_arguments(self) -> Dict[str, Any]:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        arguments = dict(self.profiler_args or {"activities": activities, "record_shapes": True})
        if "on_trace_ready" not in arguments:
            folder = os.path.join(PROFILER_FOLDER, self.manifest["model"].get("modelName", ""))
            logger.info("Traces of the profiler go to %s", folder)
            arguments["on_trace_ready"] = tensorboard_trace_handler(folder)
        return arguments

    def explain_handle(self, data_preprocess: Any, raw_data: List[Any]) -> Any:
        """Return ``get_insights`` of the preprocessed batch, for the ``target`` of its first request."""
        row = raw_data[0]
        inputs: Any = None
        target: Any = 0
        if isinstance(row, dict):
            inputs = row.get("data") or row.get("body")
            target = row.get("target") or 0
        return self.get_insights(data_preprocess, inputs, target)

    def get_insights(self, tensor_data: Any, raw_data: Any, target: int = 0) -> Any:
        """Return what in the input speaks for the class ``target``: one element a request."""
        raise NotImplementedError(f"{type(self).__name__} explains nothing: it has no get_insights.")

    def _is_explain(self) -> bool:
        if not self._is_asked("explain"):
            return False
        self.explain = True
        return True

    def _is_describe(self) -> bool:
        return self._is_asked("describe")

    def _is_asked(self, header: str) -> bool:
        return bool(self.context) and self.context.get_request_header(0, header) == "True"

    def describe_handle(self) -> Any:
        """Return what the model's description says of the author's own; None for nothing."""
        return None

    def get_device(self) -> Any:
        """Return where the model is."""
        return self.device
