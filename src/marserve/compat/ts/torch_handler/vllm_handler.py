"""``VLLMHandler``: a language model on vLLM's engine, asked as OpenAI's API is: completions, chats, models.

Source: TorchServe 0.12.0, which was released beside vLLM 0.6.1; later releases construct these services otherwise.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import time
from typing import Any, Dict, List, Tuple

from marserve.worker.coroutines import finished

from ..handler_utils.libraries import library
from ..handler_utils.utils import send_intermediate_predict_response
from ..utils.util import PredictionException
from .base_handler import BaseHandler

logger = logging.getLogger(__name__)

_INSTALL = "vllm==0.6.1.post2"
_OPENAI = "vllm.entrypoints.openai"
_END_OF_STREAM = "data: [DONE]\n\n"
#: Type of the request, attribute of the service and its method, by what follows the model's name in the path.
_ENDPOINTS: Dict[str, Tuple[str, str, str]] = {
    "v1/completions": ("CompletionRequest", "completion_service", "create_completion"),
    "v1/chat/completions": ("ChatCompletionRequest", "chat_completion_service", "create_chat_completion"),
}


class VLLMHandler(BaseHandler):
    """Its ``handle`` is awaited, so that requests run beside each other: ``asyncCommunication`` with a batch of one.

    ``handler`` of the model's configuration has ``model_path`` (a folder of the archive, or a name on Hugging Face),
    ``vllm_engine_config`` with vLLM's ``AsyncEngineArgs``, ``adapters`` (paths of LoRA weights by name) and
    ``chat_template``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vllm_engine: Any = None
        self.model_dir = ""
        self.adapters: Dict[str, str] = {}
        self.completion_service: Any = None
        self.chat_completion_service: Any = None
        self.raw_request = _RawRequest()

    def initialize(self, ctx: Any) -> None:
        """Start the engine.

        Raises:
            ModuleNotFoundError: vLLM is not there.
            ValueError: the configuration names no model.
        """
        vllm = library("vllm", _INSTALL)
        self.model_dir = ctx.system_properties.get("model_dir")
        config = ctx.model_yaml_config.get("handler", {})
        arguments = self._get_vllm_engine_config(config)
        # A worker that has touched CUDA cannot fork the processes of the other GPUs.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        self.vllm_engine = vllm.AsyncLLMEngine.from_engine_args(arguments)
        self.adapters = config.get("adapters", {})
        lora = library(f"{_OPENAI}.serving_engine", _INSTALL).LoRAModulePath
        names = arguments.served_model_name or [arguments.model]
        common = (self.vllm_engine, finished(self.vllm_engine.get_model_config()), names)
        more = {
            "lora_modules": [lora(name, path) for name, path in self.adapters.items()],
            "prompt_adapters": None,
            "request_logger": None,
        }
        completion = library(f"{_OPENAI}.serving_completion", _INSTALL).OpenAIServingCompletion
        self.completion_service = completion(*common, **more)
        chat = library(f"{_OPENAI}.serving_chat", _INSTALL).OpenAIServingChat
        template = config.get("chat_template")
        self.chat_completion_service = chat(*common, "assistant", chat_template=template, **more)
        self.initialized = True

    def _get_vllm_engine_config(self, handler_config: Dict[str, Any]) -> Any:
        """Return vLLM's arguments; a folder of the archive goes before a name on the hub."""
        asked = handler_config.get("vllm_engine_config", {})
        model = asked.get("model")
        if not model:
            path = handler_config.get("model_path")
            if not path:
                raise ValueError("please define model in vllm_engine_config or model_path in handler")
            inside = pathlib.Path(self.model_dir, path)
            model = inside.as_posix() if inside.exists() else path
        arguments = library("vllm", _INSTALL).AsyncEngineArgs(model=model)
        for name, value in asked.items():
            if name in vars(arguments):
                setattr(arguments, name, value)
            else:
                logger.warning("vllm_engine_config: vLLM has no engine argument %r; it is ignored.", name)
        return arguments

    async def handle(self, data: List[Dict[str, Any]], context: Any) -> List[Any]:
        """Answer one request; the pieces of a stream are sent while they come."""
        begun = time.time()
        prepared = await self.preprocess(data, context)
        answer = await self.postprocess(await self.inference(prepared, context))
        context.metrics.add_time("HandlerTime", round((time.time() - begun) * 1000, 2), None, "ms")
        return answer

    async def preprocess(  # type: ignore[override]  # its original takes the context too
        self, requests: List[Dict[str, Any]], context: Any
    ) -> List[Any]:
        """Return the one request's body.

        Raises:
            ValueError: there are several.
        """
        if len(requests) != 1:
            raise ValueError(f"Expecting batch_size = 1, got {len(requests)} requests: set batchSize to 1.")
        body = requests[0].get("data") or requests[0].get("body")
        return [json.loads(body) if body and isinstance(body, (str, bytes, bytearray)) else body]

    async def inference(self, input_batch: List[Any], context: Any) -> List[Any]:
        """Return the answer of the endpoint that the rest of the request's path names.

        Raises:
            PredictionException: 404, there is no such endpoint.
        """
        path = context.get_request_header(0, "url_path")
        if path == "v1/models":
            return [(await self.chat_completion_service.show_available_models()).model_dump()]
        if path not in _ENDPOINTS:
            raise PredictionException(f"Unknown API endpoint: {path}", 404)
        kind, service, method = _ENDPOINTS[path]
        protocol = library(f"{_OPENAI}.protocol", _INSTALL)
        request = getattr(protocol, kind).model_validate(input_batch[0])
        answer = await getattr(getattr(self, service), method)(request, self.raw_request)
        if isinstance(answer, protocol.ErrorResponse) or not request.stream:
            return [answer.model_dump()]
        piece = ""
        async for piece in answer:
            if piece != _END_OF_STREAM:
                send_intermediate_predict_response([piece], context.request_ids, "Result", 200, context)
        return [piece]

    async def postprocess(self, inference_outputs: List[Any]) -> List[Any]:
        """Return the answers as they are."""
        return inference_outputs


class _RawRequest:
    """Stands for the HTTP request that vLLM's services ask whether its client is still there."""

    headers: Dict[str, str] = {}

    async def is_disconnected(self) -> bool:
        return False
