"""Shows what the settings of ``digits`` were chosen by: a fifth of the training pictures, never those held out.

Each choice is compared on pictures that the network did not learn from in that run. The fifth that ``train.py``
holds out is not looked at, so its figure stays what it says: of pictures that had no part in anything.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from network import DigitsNetwork
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from train import EPOCHS, SEED, accuracy, load_parts, train

sys.path.insert(0, str(Path(__file__).parents[2] / "handlers"))
from digits_service import as_digit, in_grey

EPOCHS_TRIED = (10, 20, 30, 40)
INKS_TRIED = (0.1, 0.2, 0.3, 0.4)
MARGINS_TRIED = (0.0, 0.06, 0.12)
#: How the pictures are drawn as images: side of the digit, paper around it, format, whether the ink is dark.
DRAWN_AS = ((24, 2, "PNG", True), (37, 10, "JPEG", False), (100, 25, "PNG", False), (200, 60, "JPEG", True))


def parts_to_choose_by() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return four fifths of the training pictures and their digits, then the fifth to choose by."""
    pictures, digits, _, _ = load_parts()
    is_judged = torch.arange(len(digits)) % 5 == 4
    return pictures[~is_judged], digits[~is_judged], pictures[is_judged], digits[is_judged]


def drawn(picture: torch.Tensor, side: int, paper: int, image_format: str, is_dark: bool) -> Image.Image:
    """Return a picture of the data as an image that a client might send."""
    ink = Image.fromarray((picture[0].numpy() * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    image = Image.new("L", (side + 2 * paper, side + 2 * paper))
    image.paste(ink, (paper, paper))
    file = io.BytesIO()
    (Image.fromarray(255 - np.asarray(image)) if is_dark else image).save(file, image_format)
    return Image.open(file)


def share_as_images(
    network: DigitsNetwork, pictures: torch.Tensor, digits: torch.Tensor, least_ink: float, margin: float
) -> float:
    """Return the share of right answers on pictures that are drawn as images and read back, 0..1."""
    images = [in_grey(drawn(picture, *form)) for form in DRAWN_AS for picture in pictures]
    read = [np.asarray(as_digit(np.asarray(image, dtype=np.float32), least_ink, margin)) for image in images]
    seen = torch.tensor(np.array(read, dtype=np.float32) / 255)[:, None]
    return accuracy(network, seen, digits.repeat(len(DRAWN_AS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="networks that each choice is averaged over")
    seeds = range(SEED, SEED + parser.parse_args().seeds)
    torch.set_num_threads(1)
    pictures, digits, judged_pictures, judged_digits = parts_to_choose_by()
    print(f"Learning from {len(digits)} training pictures, choosing by {len(judged_digits)} others.")
    networks = {}
    print("epochs     right")
    for epochs in EPOCHS_TRIED:
        for seed in seeds:
            torch.manual_seed(seed)
            with Progress(console=Console(quiet=True)) as progress:
                networks[epochs, seed] = train(pictures, digits, progress, epochs)
        shares = [accuracy(networks[epochs, seed], judged_pictures, judged_digits) for seed in seeds]
        print(f"{epochs:6} {np.mean(shares):9.2%}", flush=True)
    print("ink  margin  right, as images")
    for least_ink in INKS_TRIED:
        for margin in MARGINS_TRIED:
            form = (least_ink, margin)
            shares = [
                share_as_images(networks[EPOCHS, seed], judged_pictures, judged_digits, *form) for seed in seeds
            ]
            print(f"{least_ink:.1f}  {margin:6.2f} {np.mean(shares):17.2%}", flush=True)


if __name__ == "__main__":
    main()
