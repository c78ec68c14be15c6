"""MLServer: a model whose inputs are named tensors; a request is one tensor of text that holds its JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.service import BATCH, LONGEST_WAIT, PORT, WORKERS, handle_from_environment


class Answering(MLModel):
    async def load(self) -> bool:
        self.handle = handle_from_environment()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        items = [json.loads(text) for text in StringCodec.decode_input(payload.inputs[0])]
        answers = [json.dumps(answer) for answer in self.handle(items)]
        output = StringCodec.encode_output("answer", answers)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])


async def main() -> None:
    settings: dict[str, Any] = {"host": "127.0.0.1", "http_port": PORT, "grpc_port": 0, "metrics_port": 0}
    # One process would be no worker but the server itself; its own default is one worker beside it.
    server = MLServer(Settings(parallel_workers=WORKERS, metrics_endpoint=None, debug=False, **settings))
    model = ModelSettings(
        name="bench",
        implementation="bench.peers.mlserver_app.Answering",
        max_batch_size=BATCH if BATCH > 1 else 0,
        max_batch_time=LONGEST_WAIT if BATCH > 1 else 0.0,
    )
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(main())
