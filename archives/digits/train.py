"""Trains the digits network on four fifths of scikit-learn's handwritten digits, and tests it on the last one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from network import DigitsNetwork
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional

SEED = 0
EPOCHS = 30
BATCH = 64
HIGHEST_RATE = 4e-3
#: Below this share of right answers on the held-out fifth no archive is made.
LEAST_ACCURACY = 0.98
#: How far a training picture is turned (radians), scaled (share), and moved (share of half its side), at most.
TURN, SCALE, MOVE = 0.15, 0.1, 0.175


def load_parts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pictures ``float32 (n, 1, 8, 8)``, values 0..1, and digits to learn from, then those held out.

    Every fifth picture is held out: the data goes writer by writer, so each writer is in both parts.
    Source: ``sklearn.datasets.load_digits``, 1,797 pictures from the UCI optical digits test set.
    """
    data = load_digits()
    pictures = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    digits = torch.tensor(data.target)
    is_held_out = torch.arange(len(digits)) % 5 == 4
    return pictures[~is_held_out], digits[~is_held_out], pictures[is_held_out], digits[is_held_out]


def shake(pictures: torch.Tensor) -> torch.Tensor:
    """Return each picture a little turned, scaled and moved, so that the network does not learn points by heart."""
    count = len(pictures)

    def between(bound: float, *shape: int) -> torch.Tensor:
        return (torch.rand(count, *shape) * 2 - 1) * bound

    angle, scale = between(TURN), 1 + between(SCALE, 2)
    grid = torch.zeros(count, 2, 3)
    grid[:, 0, 0], grid[:, 0, 1] = angle.cos() * scale[:, 0], -angle.sin()
    grid[:, 1, 0], grid[:, 1, 1] = angle.sin(), angle.cos() * scale[:, 1]
    grid[:, :, 2] = between(MOVE, 2)
    return functional.grid_sample(
        pictures, functional.affine_grid(grid, list(pictures.shape), align_corners=False), align_corners=False
    )


def accuracy(network: DigitsNetwork, pictures: torch.Tensor, digits: torch.Tensor) -> float:
    """Return the share of the pictures that the network names rightly, 0..1."""
    network.eval()
    with torch.inference_mode():
        return (network(pictures).argmax(1) == digits).double().mean().item()


def train(pictures: torch.Tensor, digits: torch.Tensor, progress: Progress, epochs: int = EPOCHS) -> DigitsNetwork:
    """Return a network that has seen each picture ``epochs`` times, each time shaken anew."""
    network = DigitsNetwork()
    optimizer = torch.optim.Adam(network.parameters())
    batches_an_epoch = -(-len(digits) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, HIGHEST_RATE, epochs * batches_an_epoch)
    bar = progress.add_task("  training", total=epochs)
    for epoch in range(1, epochs + 1):
        network.train()
        for chosen in torch.randperm(len(digits)).split(BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(shake(pictures[chosen])), digits[chosen])
            loss.backward()
            optimizer.step()
            rate.step()
        progress.advance(bar)
        if epoch % 10 == 0:
            progress.console.print(f"  epoch {epoch:3} of {epochs}: loss {loss.item():.4f}", highlight=False)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets digits.safetensors")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order, so the same weights on any count of cores
    started = time.monotonic()
    pictures, digits, held_pictures, held_digits = load_parts()
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        network = train(pictures, digits, progress)
    share = accuracy(network, held_pictures, held_digits)
    print(f"  trained in {time.monotonic() - started:.1f} s on {len(digits)} pictures")
    print(f"  accuracy on the {len(held_digits)} held-out pictures: {share:.2%}")
    if share <= LEAST_ACCURACY:
        raise SystemExit(f"The accuracy has to be over {LEAST_ACCURACY:.0%}: change SEED or EPOCHS in {__file__}.")
    save_file(network.state_dict(), folder / "digits.safetensors")


if __name__ == "__main__":
    main()
