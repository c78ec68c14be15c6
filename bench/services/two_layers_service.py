"""The network of two layers, 10 to 100 to 4: the word for the next number. Runs in every server, imports none."""

import os

import numpy as np
import onnxruntime

WORDS = ("", "Fiz", "Buz", "FizBuz")
_BITS = ((np.arange(2**10)[:, None] >> np.arange(10)) & 1).astype(np.float32)


class TwoLayersService:
    """``{"input.1": 14}`` gives ``{"next_number": "FizBuz"}``; the network is an ONNX file, one thread."""

    def initialize(self, context):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.path.join(context.system_properties["model_dir"], "fizbuz.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def handle(self, data, context):
        numbers = [row["body"]["input.1"] + 1 for row in data]
        (scores,) = self.session.run(None, {self.input: _BITS[numbers]})
        indices = scores.argmax(1).tolist()
        return [{"next_number": WORDS[index] or str(number)} for number, index in zip(numbers, indices, strict=True)]
