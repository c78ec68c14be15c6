"""The service that does nothing: what came goes back. Runs in every server, imports none."""


class EchoService:
    """Bytes in, the same bytes out."""

    def initialize(self, context):
        """Load nothing."""

    def handle(self, data, context):
        return [bytes(row.get("body") or row.get("data")) for row in data]
