"""Draws scenes of shapes, trains the segmenter on them, and tests it on others."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from network import CLASS_COUNT, ShapesSegmenter
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from shapes_scenes import SHAPES, UNSEEN, draw_scene

SEED = 0
#: Scenes to learn from, and how often each is seen; with --brief so few that it takes a few seconds.
SCENES, TIMES = 2500, 3
BRIEF_SCENES, BRIEF_TIMES = 96, 1
BATCH = 8
HIGHEST_RATE = 1e-2
#: Side of the network's square, in points. A scene that is lower or narrower lies in its upper left corner, on black.
SIDE = 128
#: Width and height of the scenes, in turn: half of them fill the square.
SIZES = ((SIDE, SIDE), (SIDE, 96), (SIDE, SIDE), (96, SIDE))
#: Unseen scenes of the full square to test on, and the mean intersection over union below which no archive is made.
TESTED, LEAST_IOU = 250, 0.85


def drawn(seeds: range, sizes: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scenes in the network's square, ``uint8 (n, 3, 128, 128)``, and classes ``uint8 (n, 128, 128)``."""
    pictures = np.zeros((len(seeds), SIDE, SIDE, 3), dtype=np.uint8)
    classes = np.zeros((len(seeds), SIDE, SIDE), dtype=np.uint8)
    for row, seed in enumerate(seeds):
        width, height = size = sizes[seed % len(sizes)]
        scene = draw_scene(seed, size)
        pictures[row, :height, :width] = np.asarray(scene.image)
        classes[row, :height, :width] = scene.classes
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(classes)


def train(count: int, times: int, progress: Progress) -> ShapesSegmenter:
    """Return a network that has seen so many scenes, each so often."""
    bar = progress.add_task("  drawing", total=None)
    pictures, classes = drawn(range(count), SIZES)
    steps = count // BATCH * times
    progress.update(bar, description="  training", total=steps)
    # As the pictures lie in memory too, which is faster.
    network = ShapesSegmenter().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, HIGHEST_RATE, steps)
    for time_seen in range(1, times + 1):
        for chosen in torch.randperm(count)[: count // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(pictures[chosen].float() / 255), classes[chosen].long())
            loss.backward()
            optimizer.step()
            rate.step()
            progress.advance(bar)
        progress.console.print(f"  {count} scenes seen {time_seen} of {times} times: loss {loss.item():.4f}")
    return network.eval()


def overlaps(network: ShapesSegmenter, seeds: range) -> torch.Tensor:
    """Return the intersection over union of each class, ``float64 (5,)``, over all points of the scenes together."""
    counts = torch.zeros(CLASS_COUNT * CLASS_COUNT, dtype=torch.int64)
    with torch.inference_mode():
        for start in range(0, len(seeds), BATCH):
            pictures, classes = drawn(seeds[start : start + BATCH], [(SIDE, SIDE)])
            pairs = classes.long() * CLASS_COUNT + network(pictures.float() / 255).argmax(1)
            counts += pairs.flatten().bincount(minlength=len(counts))
    table = counts.reshape(CLASS_COUNT, CLASS_COUNT).double()
    both = table.diagonal()
    return both / (table.sum(0) + table.sum(1) - both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets shapes_segmenter.safetensors")
    parser.add_argument("--brief", action="store_true", help="learn a few seconds, and check nothing")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order, so the same weights on any count of cores
    started = time.monotonic()
    count, times = (BRIEF_SCENES, BRIEF_TIMES) if arguments.brief else (SCENES, TIMES)
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        network = train(count, times, progress)
    print(f"  trained in {time.monotonic() - started:.1f} s on {count} scenes")
    if not arguments.brief:
        found = overlaps(network, range(UNSEEN, UNSEEN + TESTED))
        each = ", ".join(
            f"{name} {share:.3f}" for name, share in zip(("background", *SHAPES), found.tolist(), strict=True)
        )
        print(f"  mean IoU over the {CLASS_COUNT} classes on {TESTED} unseen scenes: {found.mean():.3f} ({each})")
        if found.mean() < LEAST_IOU:
            raise SystemExit(
                f"The mean IoU has to be {LEAST_IOU} or more: change SCENES, TIMES or SEED in {__file__}."
            )
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, arguments.output / "shapes_segmenter.safetensors")


if __name__ == "__main__":
    main()
