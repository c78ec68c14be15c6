"""Services as Multi Model Server had them, whose names TorchServe kept."""

from . import model_service

__all__ = ["model_service"]
