"""``mms.context``: what a service is told of itself and its requests."""

from marserve.service.context import Context, RequestProcessor

__all__ = ["Context", "RequestProcessor"]
