"""Trains the network of ``scene_match``: first to see what is where in scenes, then to judge sentences about it."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "handlers"))

import torch
from network import CELLS, SceneMatchNetwork
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from scene_match_words import numbers_of, points_of, words_in
from sentences import Seen, draw_sentence, mirrored, seen_in
from shapes_scenes import COLOURS, SHAPES, UNSEEN, draw_scene
from torch.nn import functional

SEED = 0
#: Below this share of right answers about unseen scenes no archive is made.
LEAST_ACCURACY = 0.95
#: Scenes a step of the tower, sentences a step of the judge, and the highest rate at which each learns.
SCENES_A_STEP, SENTENCES_A_STEP = 64, 256
HIGHEST_RATE, HIGHEST_JUDGING_RATE = 6e-3, 6e-3
#: Most cells are empty; so much counts each of them beside one with a thing.
EMPTY_WEIGHT = 0.3
#: What a colour of an empty cell is: not learned from.
IGNORED = -100


@dataclass(frozen=True)
class Effort:
    """How much is learned: scenes and times that the tower sees each, steps of the judge, scenes to measure with."""

    scenes: int
    epochs: int
    steps: int
    unseen: int


FULL = Effort(scenes=4000, epochs=8, steps=800, unseen=1000)
BRIEF = Effort(scenes=128, epochs=4, steps=20, unseen=20)

#: Pictures ``uint8 (n, 3, 64, 64)`` and what is in each.
Scenes = tuple[torch.Tensor, list[tuple[Seen, ...]]]


def draw_scenes(first: int, count: int, progress: Progress) -> Scenes:
    """Return the scenes of so many seeds, from the first on."""
    bar = progress.add_task("  drawing", total=count)
    pictures, things = [], []
    for seed in range(first, first + count):
        scene = draw_scene(seed)
        pictures.append(torch.from_numpy(points_of(scene.image) * 255).round().byte())
        things.append(seen_in(scene))
        progress.advance(bar)
    return torch.stack(pictures), things


def with_mirrored(scenes: Scenes) -> Scenes:
    """Return the scenes, and behind them each with its sides exchanged."""
    pictures, things = scenes
    return torch.cat([pictures, pictures.flip(3)]), things + [mirrored(each) for each in things]


def looks_of(things: Sequence[Seen]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the cells of a picture should tell: shapes and colours ``(8, 8)``, places in them ``(2, 8, 8)``."""
    shapes = torch.zeros(CELLS, CELLS, dtype=torch.int64)
    colours = torch.full((CELLS, CELLS), IGNORED)
    places = torch.zeros(2, CELLS, CELLS)
    for thing in things:
        column, row = (int(share * CELLS) for share in thing.middle)
        shapes[row, column] = 1 + SHAPES.index(thing.shape)
        colours[row, column] = list(COLOURS).index(thing.colour)
        places[:, row, column] = torch.tensor(thing.middle) * CELLS - torch.tensor([column, row])
    return shapes, colours, places


def learn_to_see(network: SceneMatchNetwork, scenes: Scenes, epochs: int, progress: Progress) -> None:
    """Teach the tower what is in each cell."""
    pictures, things = scenes
    shapes, colours, places = (torch.stack(part) for part in zip(*map(looks_of, things), strict=True))
    weights = torch.tensor([EMPTY_WEIGHT, *[1.0] * len(SHAPES)])
    optimizer = torch.optim.Adam(network.tower.parameters())
    step_count = epochs * -(-len(things) // SCENES_A_STEP)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, HIGHEST_RATE, step_count)
    bar = progress.add_task("  learning to see", total=step_count)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(things)).split(SCENES_A_STEP):
            looks = network.tower(pictures[chosen] / 255)
            is_there = (shapes[chosen] > 0)[:, None].expand(-1, 2, -1, -1)
            loss = functional.cross_entropy(looks[:, : 1 + len(SHAPES)], shapes[chosen], weights)
            loss += functional.cross_entropy(looks[:, 1 + len(SHAPES) : -2], colours[chosen], ignore_index=IGNORED)
            loss += functional.l1_loss(looks[:, -2:].sigmoid()[is_there], places[chosen][is_there])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            progress.advance(bar)
    progress.console.print(f"  seeing: loss {loss.item():.4f}", highlight=False)


def learn_to_judge(network: SceneMatchNetwork, scenes: Scenes, steps: int, progress: Progress) -> None:
    """Teach what phrases mean and all but the tower, on what that sees: it stays, so each scene is looked at once."""
    pictures, things = scenes
    network.eval()
    with torch.inference_mode():
        looked = torch.cat([network.cells(network.tower(some / 255)) for some in pictures.split(SCENES_A_STEP)])
    cells = looked.clone()  # tensors of the inference mode cannot be learned from
    chance = random.Random(SEED)
    learning = [weights for name, weights in network.named_parameters() if not name.startswith("tower.")]
    optimizer = torch.optim.Adam(learning)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, HIGHEST_JUDGING_RATE, steps)
    bar = progress.add_task("  learning to judge", total=steps)
    for step in range(1, steps + 1):
        chosen = [chance.randrange(len(things)) for _ in range(SENTENCES_A_STEP)]
        told = tell([things[one] for one in chosen], chance)
        meant, whole = network.read(told.words)
        loss = functional.cross_entropy(network.judge(cells[chosen], meant, whole), told.truths)
        loss += functional.binary_cross_entropy(meant[told.is_there], told.kinds[told.is_there])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        progress.advance(bar)
        if step % 200 == 0:
            progress.console.print(f"  judging, step {step:4} of {steps}: loss {loss.item():.4f}", highlight=False)


class Told(NamedTuple):
    """Sentences about scenes, one each.

    Attributes:
        words: ``int64 (n, 12)``.
        truths: 1 where it describes its scene, ``int64 (n,)``: every other one does.
        kinds: which kinds each phrase means, ``float32 (n, 2, 20)``.
        is_there: whether there is such a phrase, ``bool (n, 2)``.
    """

    words: torch.Tensor
    truths: torch.Tensor
    kinds: torch.Tensor
    is_there: torch.Tensor


def tell(things: Sequence[Sequence[Seen]], chance: random.Random) -> Told:
    """Return one sentence about each scene."""
    drawn = [draw_sentence(chance, each, is_true=place % 2 == 1) for place, each in enumerate(things)]
    words = [torch.from_numpy(numbers_of(words_in(each.spoken(chance)))) for each in drawn]
    kinds = [[each.first.kinds(), (each.second or each.first).kinds()] for each in drawn]
    is_there = [[True, each.second is not None] for each in drawn]
    return Told(torch.stack(words), torch.arange(len(drawn)) % 2, torch.tensor(kinds).float(), torch.tensor(is_there))


def accuracy(network: SceneMatchNetwork, scenes: Scenes) -> float:
    """Return the share of right answers to one true and one false sentence about each scene, 0..1."""
    pictures, things = scenes
    told = tell([each for each in things for _ in range(2)], random.Random(SEED + 1))
    network.eval()
    with torch.inference_mode():
        pairs = zip(pictures.repeat_interleave(2, 0).split(100), told.words.split(100), strict=True)
        answers = torch.cat([network(some / 255, words).argmax(1) for some, words in pairs])
    return (answers == told.truths).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets scene_match.safetensors")
    parser.add_argument("--brief", action="store_true", help="learn a few seconds and promise nothing")
    arguments = parser.parse_args()
    effort = BRIEF if arguments.brief else FULL
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order, so the same weights on any count of cores
    started = time.monotonic()
    network = SceneMatchNetwork()
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        scenes = with_mirrored(draw_scenes(0, effort.scenes, progress))
        learn_to_see(network, scenes, effort.epochs, progress)
        learn_to_judge(network, scenes, effort.steps, progress)
        share = accuracy(network, draw_scenes(UNSEEN, effort.unseen, progress))
    print(f"  trained in {time.monotonic() - started:.1f} s on {effort.scenes} scenes, each also mirrored")
    print(f"  accuracy on {2 * effort.unseen} sentences about {effort.unseen} unseen scenes: {share:.2%}")
    if share < LEAST_ACCURACY and not arguments.brief:
        raise SystemExit(f"The accuracy has to be {LEAST_ACCURACY:.0%} or more: change SEED or FULL in {__file__}.")
    save_file(network.state_dict(), arguments.output / "scene_match.safetensors")


if __name__ == "__main__":
    main()
