"""Answers of Multi Model Server's workers as bytes, for tests that read or write them: as in TorchServe after it.

marserve's own workers speak another protocol (``marserve.wire``).
"""

from ts.protocol.otf_message_handler import (
    create_load_model_response,
    create_predict_response,
    encode_response_headers,
)

__all__ = ["create_load_model_response", "create_predict_response", "encode_response_headers"]
