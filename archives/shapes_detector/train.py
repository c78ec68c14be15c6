"""Trains the detector of shapes.cfg on drawn scenes, and measures it on scenes that it has never seen."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from detection import Found, candidates, chosen, letterbox, reduction
from network import BOX_AND_OBJECTNESS, DarknetNetwork
from precision import mean_average_precision
from rich.console import Console
from rich.progress import Progress
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shapes_scenes import SHAPES, UNSEEN, Scene, draw_scene

FOLDER = Path(__file__).resolve().parent
SEED = 0
SCENES, EPOCHS = 2500, 5
BRIEF_SCENES, BRIEF_EPOCHS = 160, 5
#: Scenes that the figure is measured on.
MEASURED = 400
BATCH = 8
HIGHEST_RATE = 4e-3
#: Below this mean average precision no archive is made.
LEAST_PRECISION = 0.9
#: Widths and heights of the scenes, in turn; where they are no square the network sees grey beside them.
SIZES = ((128, 128), (128, 96), (128, 128), (80, 128))
#: Anchors that have at least so much of a shape's width and height learn to find it; the best one always does.
LIKE_ENOUGH = 0.5
#: For the figure every box counts that is not quite improbable, as usual; the service answers less.
LEAST_MEASURED, MOST_OVERLAP = 0.02, 0.45


def draw_scenes(first: int, count: int, progress: Progress) -> list[Scene]:
    """Return the scenes of ``count`` seeds from ``first`` on."""
    seeds = progress.track(range(first, first + count), description="  drawing")
    return [draw_scene(seed, SIZES[seed % len(SIZES)]) for seed in seeds]


def inputs_of(scenes: list[Scene], size: tuple[int, int]) -> torch.Tensor:
    """Return what the network sees of scenes: ``uint8 (scenes, 3, height, width)``."""
    pictures = torch.zeros(len(scenes), 3, size[1], size[0], dtype=torch.uint8)
    for picture, scene in zip(pictures, scenes, strict=True):
        picture.copy_(torch.from_numpy(letterbox(scene.image, size) * 255).round())
    return pictures


class Targets:
    """What the network should answer.

    Attributes:
        heads: one tensor a head, of the form of its output: a thing's place in its cell (shares), logarithms of its
            size in anchors, 1 where there is a thing, and 1 for its class.
    """

    def __init__(self, network: DarknetNetwork, scenes: list[Scene]) -> None:
        self._network = network.eval()
        with torch.inference_mode():
            forms = [output.shape[1:] for output in network(torch.zeros(1, 3, *network.size[::-1]))]
        self.heads = [torch.zeros(len(scenes), *form) for form in forms]
        for index, scene in enumerate(scenes):
            for thing in scene.things:
                box = torch.tensor(thing.box) / reduction(scene.image.size, network.size)
                self._add(index, box, SHAPES.index(thing.shape))

    def _add(self, index: int, box: torch.Tensor, kind: int) -> None:
        middle, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        anchors = [torch.tensor(head.anchors, dtype=torch.float32) for head in self._network.heads]
        likenesses = [likeness(each, extent) for each in anchors]
        wanted = min(LIKE_ENOUGH, max(each.max().item() for each in likenesses))
        for head, own, alike in zip(self.heads, anchors, likenesses, strict=True):
            rows, columns = head.shape[2:4]
            place = middle * torch.tensor([columns, rows]) / torch.tensor(self._network.size)
            column, row = place.long().tolist()
            for number in (alike >= wanted).nonzero().flatten().tolist():
                target = head[index, number, row, column]
                target.zero_()
                target[:2], target[2:4] = place - place.floor(), (extent / own[number]).log()
                target[4] = target[BOX_AND_OBJECTNESS + kind] = 1


def likeness(anchors: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of boxes ``(n, 2)`` with one ``(2,)`` if all had the same middle."""
    shared = torch.minimum(anchors, extent).prod(-1)
    return shared / (anchors.prod(-1) + extent.prod() - shared)


def mirrored(target: torch.Tensor) -> torch.Tensor:
    """Return the targets of a head for pictures whose left is right."""
    turned = target.flip(3)
    turned[..., 0] = (1 - turned[..., 0]) * turned[..., 4]
    return turned


def loss_of(outputs: list[torch.Tensor], targets: list[torch.Tensor]) -> torch.Tensor:
    """Return how far the heads are from their targets, for each thing. Source: YOLOv3, 2.1 to 2.3."""
    total, count = torch.zeros(()), 0
    for output, target in zip(outputs, targets, strict=True):
        is_thing = target[..., 4] == 1
        found, wanted = output[is_thing], target[is_thing]
        total = total + functional.binary_cross_entropy_with_logits(output[..., 4], target[..., 4], reduction="sum")
        for part in (slice(0, 2), slice(BOX_AND_OBJECTNESS, None)):
            total = total + functional.binary_cross_entropy_with_logits(
                found[:, part], wanted[:, part], reduction="sum"
            )
        total = total + functional.mse_loss(found[:, 2:4], wanted[:, 2:4], reduction="sum")
        count += len(found)
    return total / max(1, count)


def train(network: DarknetNetwork, scenes: list[Scene], epochs: int, progress: Progress) -> None:
    """Show the network each scene ``epochs`` times, mirrored every other time."""
    pictures, targets = inputs_of(scenes, network.size), Targets(network, scenes).heads
    optimizer = torch.optim.Adam(network.parameters())
    batches_an_epoch = -(-len(scenes) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, HIGHEST_RATE, epochs * batches_an_epoch)
    bar = progress.add_task("  training", total=epochs * batches_an_epoch)
    network.train()
    for epoch in range(1, epochs + 1):
        for count, batch in enumerate(torch.randperm(len(scenes)).split(BATCH)):
            seen, wanted = pictures[batch].float() / 255, [target[batch] for target in targets]
            if (count + epoch) % 2:
                seen, wanted = seen.flip(3), [mirrored(target) for target in wanted]
            optimizer.zero_grad()
            loss = loss_of(network(seen), wanted)
            loss.backward()
            optimizer.step()
            rate.step()
            network.seen += len(batch)
            progress.advance(bar)
        progress.console.print(f"  epoch {epoch} of {epochs}: loss {loss.item():.3f}", highlight=False)


def measure(network: DarknetNetwork, scenes: list[Scene]) -> float:
    """Return the mean average precision of scenes, 0..1."""
    network.eval()
    found: list[Found] = []
    with torch.inference_mode():
        for scene in scenes:
            picture = torch.from_numpy(letterbox(scene.image, network.size))
            (proposed,) = candidates(network(picture[None]), network.heads, network.size)
            one = chosen(proposed, LEAST_MEASURED, MOST_OVERLAP)
            found.append(one._replace(boxes=one.boxes * reduction(scene.image.size, network.size)))
    return mean_average_precision(found, scenes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets shapes.weights")
    parser.add_argument("--brief", action="store_true", help="learn for some seconds, whatever comes of it")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order, so the same weights on any count of cores
    started = time.monotonic()
    count, epochs = (BRIEF_SCENES, BRIEF_EPOCHS) if arguments.brief else (SCENES, EPOCHS)
    network = DarknetNetwork(FOLDER / "shapes.cfg")
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        train(network, draw_scenes(0, count, progress), epochs, progress)
        print(f"  trained in {time.monotonic() - started:.1f} s on {count} scenes, {epochs} times each")
        if not arguments.brief:
            precision = measure(network, draw_scenes(UNSEEN, MEASURED, progress))
            print(f"  mean average precision at IoU 0.5 on {MEASURED} unseen scenes: {precision:.2%}")
            if precision < LEAST_PRECISION:
                raise SystemExit(f"The precision has to be {LEAST_PRECISION:.0%}: change EPOCHS in {__file__}.")
    network.save_weights(arguments.output / "shapes.weights")


if __name__ == "__main__":
    main()
