"""A service that sleeps: queueing and nothing else. Runs in every server, imports none."""

import os
import time


class PauseService:
    """A number in, the same number out, after the seconds that the archive's file ``seconds`` says for each call."""

    def initialize(self, context):
        with open(os.path.join(context.system_properties["model_dir"], "seconds")) as file:
            self.seconds = float(file.read())

    def handle(self, data, context):
        time.sleep(self.seconds)
        return [{"number": row["body"]["number"]} for row in data]
