"""Has a description of its own for whoever asks for it."""


class Described:
    """Answers predictions with one word."""

    def initialize(self, context):
        """Load nothing."""
        self.context = context

    def handle(self, data, context):
        """Answer a batch; TorchServe asks for the description with a header."""
        if context.get_request_header(0, "describe") == "True":
            return [self.describe_handle()]
        return ["predicted"] * len(data)

    def describe_handle(self):
        """Describe the model."""
        return {"name": "described", "inputs": ["a", 1, 2.5, None, True]}
