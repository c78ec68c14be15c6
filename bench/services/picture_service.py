"""The network of the worked archive ``digits`` behind a PNG upload. Runs in every server, imports none."""

import io
import os

import numpy as np
import torch
from network import DigitsNetwork
from PIL import Image
from safetensors.torch import load_file

#: Points a side that the network takes, and the number for a point that is all ink.
SIDE, FULL = 8, 255
ANSWERS = 5


class PictureService:
    """A picture of dark ink on white gives the five most likely labels with their probabilities."""

    def initialize(self, context):
        self.network = DigitsNetwork()
        path = os.path.join(context.system_properties["model_dir"], "digits.safetensors")
        self.network.load_state_dict(load_file(path))
        self.network.eval()
        # Some server may have set more: threads of one request would fight with those of the next.
        torch.set_num_threads(1)

    def handle(self, data, context):
        pictures = np.stack([_points(row.get("body") or row.get("data")) for row in data])
        with torch.inference_mode():
            shares, labels = self.network(torch.from_numpy(pictures)).softmax(1).topk(ANSWERS)
        pairs = zip(labels.tolist(), shares.tolist(), strict=True)
        return [{str(label): share for label, share in zip(*pair, strict=True)} for pair in pairs]


def _points(body):
    picture = Image.open(io.BytesIO(body)).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return 1 - np.asarray(picture, dtype=np.float32)[None] / FULL
