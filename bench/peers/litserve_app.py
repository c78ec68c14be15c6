"""LitServe: FastAPI in front, and workers that are told the service as a class."""

from typing import Any

import litserve

from bench.peers.service import BATCH, LONGEST_WAIT, PATH, PORT, WORKERS, handle_from_environment


class Answering(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.handle = handle_from_environment()

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, batch: Any) -> Any:
        # With a largest batch of 1 it hands over the request itself.
        return self.handle(batch) if BATCH > 1 else self.handle([batch])[0]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    wait = LONGEST_WAIT if BATCH > 1 else 0.0
    api = Answering(max_batch_size=BATCH, batch_timeout=wait, api_path=PATH)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
