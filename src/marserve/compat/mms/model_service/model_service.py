"""``ModelService`` and ``SingleNodeService``: services with a ``signature.json``."""

from ts.model_service.model_service import ModelService, SingleNodeService

__all__ = ["ModelService", "SingleNodeService"]
