"""A text encoder of 20 million parameters with random weights: compute-bound. Runs in every server, imports none."""

import os
import zlib

import torch

VOCABULARY, WIDTH, LAYERS, HEADS = 15000, 512, 4, 8
#: Words of a text beyond these are cut off.
LONGEST = 64
#: Numbers of an answer.
ANSWERS = 8


def made_encoder():
    """Return the network with random weights, the same on each call."""
    torch.manual_seed(7)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
    parts = {
        "words": torch.nn.Embedding(VOCABULARY, WIDTH),
        "layers": torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False),
    }
    return torch.nn.ModuleDict(parts).eval()


class EncoderService:
    """``{"text": …}`` gives ``{"vector": […]}``, the first eight numbers of the mean over its words."""

    def initialize(self, context):
        self.network = made_encoder()
        path = os.path.join(context.system_properties["model_dir"], "encoder.pt")
        self.network.load_state_dict(torch.load(path, weights_only=True))
        # Some server may have set more: threads of one request would fight with those of the next.
        torch.set_num_threads(1)

    def handle(self, data, context):
        texts = [_words(row["body"]["text"]) for row in data]
        longest = max(map(len, texts))
        words = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        is_padding = torch.arange(longest)[None] >= torch.tensor([len(text) for text in texts])[:, None]
        with torch.inference_mode():
            states = self.network["layers"](self.network["words"](words), src_key_padding_mask=is_padding)
            states = states.masked_fill(is_padding[:, :, None], 0).sum(1) / (~is_padding).sum(1, keepdim=True)
        return [{"vector": vector} for vector in states[:, :ANSWERS].tolist()]


def _words(text):
    # Python's own hash differs from process to process.
    return [zlib.crc32(word.encode()) % VOCABULARY for word in text.split()[:LONGEST]]
