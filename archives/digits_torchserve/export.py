"""Writes the weights of digits for TorchServe's ``image_classifier``, and tests them on digits drawn as images."""

from __future__ import annotations

import argparse
import io
import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from marserve.compat.ts.torch_handler.images import ImageNetProcessing

sys.path.insert(0, str(Path(__file__).parents[1] / "digits"))
from digits_classifier import DigitsClassifier
from train import load_parts

#: Sides of the drawn images, in points: smaller than the handler's 256, the same, and larger.
SIDES = (40, 256, 500)
#: Below this share of right answers on the images of one size no archive is made.
LEAST_ACCURACY = 0.95


def drawn(picture: torch.Tensor, side: int, chance: random.Random) -> Image.Image:
    """Return a picture of the data as an image that a client might send: a JPEG, dark on light or light on dark.

    The digit is two thirds as wide as the image, and nowhere in the sixteenth at the edges that the handler cuts off.

    Args:
        picture: ``float32 (1, 8, 8)``, values 0..1.
        side: of the image, in points.
    """
    wide = side * 2 // 3
    ink = Image.fromarray((picture[0].numpy() * 255).astype(np.uint8)).resize((wide, wide), Image.Resampling.BICUBIC)
    paper = Image.new("L", (side, side))
    paper.paste(ink, (chance.randint(side // 12, side // 4), chance.randint(side // 12, side // 4)))
    is_dark = chance.random() < 0.5
    file = io.BytesIO()
    (Image.fromarray(255 - np.asarray(paper)) if is_dark else paper).save(file, "JPEG")
    return Image.open(file)


def share_right(network: DigitsClassifier, pictures: torch.Tensor, digits: torch.Tensor, side: int) -> float:
    """Return the share of the pictures that are read rightly, drawn and then prepared as by the handler, 0..1."""
    chance, prepare = random.Random(side), ImageNetProcessing()
    right_count = 0
    with torch.inference_mode():
        for picture, digit in zip(pictures, digits.tolist(), strict=True):
            scores = network(prepare(drawn(picture, side, chance))[None])
            right_count += int(scores.argmax()) == digit
    return right_count / len(digits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="digits.safetensors, of digits/train.py")
    parser.add_argument("--output", type=Path, required=True, help="folder that gets digits_torchserve.pt")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    weights = load_file(arguments.weights)
    network = DigitsClassifier().eval()
    network.load_state_dict(weights)
    _, _, pictures, digits = load_parts()
    for side in SIDES:
        share = share_right(network, pictures, digits, side)
        print(f"  accuracy on the {len(digits)} held-out pictures as images of {side} x {side}: {share:.2%}")
        if share <= LEAST_ACCURACY:
            raise SystemExit(f"The accuracy has to be over {LEAST_ACCURACY:.0%}: see digits_classifier.py.")
    torch.save(weights, arguments.output / "digits_torchserve.pt")


if __name__ == "__main__":
    main()
