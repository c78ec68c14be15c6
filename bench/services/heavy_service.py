"""A model of 400 MB that is looked at once a request: what workers weigh. Runs in every server, imports none."""

import numpy as np

NUMBERS = 100_000_000


class HeavyService:
    """A number in, the same number out; 400 MB of float32 are held as weights are, written and never changed."""

    def initialize(self, context):
        self.weights = np.full(NUMBERS, 1.0, dtype=np.float32)

    def handle(self, data, context):
        return [{"number": row["body"]["number"] * int(self.weights[index])} for index, row in enumerate(data)]
