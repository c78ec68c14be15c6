"""``TRTLLMHandler``: a language model on an engine of TensorRT-LLM.

Source: TorchServe 0.12.0, which was released beside TensorRT-LLM 0.12.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict, List

from ..handler_utils.libraries import library
from ..handler_utils.utils import send_intermediate_predict_response
from .base_handler import BaseHandler

_INSTALL = "tensorrt_llm==0.12.0"


class TRTLLMHandler(BaseHandler):
    """Its ``handle`` is awaited, so that requests run beside each other: ``asyncCommunication`` with a batch of one.

    ``handler`` of the model's configuration has ``engine_dir``, ``tokenizer_dir`` and ``kv_cache_config``. A request
    is a JSON object with ``prompt``, ``streaming`` and arguments of ``SamplingParams``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trt_llm_engine: Any = None
        self.tokenizer: Any = None

    def initialize(self, ctx: Any) -> None:
        """Load the tokenizer and the engine.

        Raises:
            ModuleNotFoundError: TensorRT-LLM or transformers is not there.
        """
        hlapi = library("tensorrt_llm.hlapi", _INSTALL)
        config = ctx.model_yaml_config.get("handler", {})
        self.tokenizer = library("transformers", "transformers").AutoTokenizer.from_pretrained(
            config.get("tokenizer_dir"),
            legacy=False,
            padding_side="left",
            truncation_side="left",
            trust_remote_code=True,
            use_fast=True,
        )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token_id = self.tokenizer.eos_token_id
        self.trt_llm_engine = hlapi.LLM(
            model=config.get("engine_dir"),
            tokenizer=self.tokenizer,
            kv_cache_config=hlapi.KvCacheConfig(**config.get("kv_cache_config", {})),
        )
        self.initialized = True

    async def handle(self, data: List[Dict[str, Any]], context: Any) -> List[str]:
        """Answer one request; the pieces of a stream are sent while they come."""
        begun = time.time()
        prepared = await self.preprocess(data)
        answer = await self.postprocess(await self.inference(prepared, context))
        context.metrics.add_time("HandlerTime", round((time.time() - begun) * 1000, 2), None, "ms")
        return answer

    async def preprocess(self, requests: List[Dict[str, Any]]) -> Dict[str, Any]:
        """Return the one request's JSON object.

        Raises:
            ValueError: there are several requests, or it is no such object.
        """
        if len(requests) != 1:
            raise ValueError(f"Expecting batch_size = 1, got {len(requests)} requests: set batchSize to 1.")
        body = requests[0].get("data") or requests[0].get("body")
        found = json.loads(body) if isinstance(body, (str, bytes, bytearray)) else body
        if not isinstance(found, dict):
            raise ValueError('Expected a JSON object: {"prompt": "…"}.')
        return found

    async def inference(self, data: Dict[str, Any], context: Any) -> List[str]:
        """Return the generated text, or send it token by token as ``{"text": …}`` and return an empty one."""
        sampling = {
            "end_id": self.tokenizer.eos_token_id,
            "pad_id": self.tokenizer.pad_token_id,
            **{name: value for name, value in data.items() if name not in ("prompt", "streaming")},
        }
        is_streaming = data.get("streaming", False)
        outputs = self.trt_llm_engine.generate_async(
            data.get("prompt"),
            streaming=is_streaming,
            sampling_params=library("tensorrt_llm.hlapi", _INSTALL).SamplingParams(**sampling),
        )
        async for output in outputs:
            if not is_streaming:
                return [output.outputs[0].text]
            text = self.tokenizer.decode([output.outputs[0].token_ids[-1]])
            piece = json.dumps({"text": text})
            send_intermediate_predict_response([piece], context.request_ids, "Result", 200, context)
        return [""]

    async def postprocess(self, outputs: List[str]) -> List[str]:
        """Return the answers as they are."""
        return outputs
