"""Trains the FizBuz network on the numbers 1 to 1023 until every one is right, and writes its state dict."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from network import FizBuzNetwork
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "handlers"))
from fizbuz_numbers import NUMBERS, bits_of, word_index

SEED = 0
LEARNING_RATE = 0.01
#: By how much the right word's score has to lead each of the others, for every number. Runtimes that add in
#: another order differ by about 1e-5, so with this lead they still give the same words.
LEAD = 2.0
STEPS_A_CHECK = 100
MOST_STEPS = 20_000


def lead(scores: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Return by how much each right word leads the best wrong one, ``(numbers,)``; below 0 is a mistake."""
    right = scores.gather(1, words[:, None])
    wrong = scores.scatter(1, words[:, None], -torch.inf).amax(1)
    return right[:, 0] - wrong


def train() -> FizBuzNetwork:
    """Return a network that knows every number by at least ``LEAD``.

    Raises:
        RuntimeError: it does not get there within ``MOST_STEPS``; no archive must carry such weights.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order, so the same weights each time; more threads gain nothing here
    network = FizBuzNetwork()
    numbers = list(NUMBERS)
    bits = torch.from_numpy(bits_of(numbers))
    words = torch.tensor([word_index(number) for number in numbers])
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    started = time.monotonic()
    for step in range(1, MOST_STEPS + 1):
        scores = network(bits)
        if step % STEPS_A_CHECK == 0:
            leads = lead(scores.detach(), words)
            right_count, least = int((leads > 0).sum()), float(leads.min())
            print(f"  step {step:5}: {right_count} of {len(numbers)} right, least lead {least:6.2f}", flush=True)
            if least >= LEAD:
                print(f"  trained in {time.monotonic() - started:.1f} s")
                return network.eval()
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, words).backward()
        optimizer.step()
    raise RuntimeError(f"the network still errs after {MOST_STEPS} steps: change SEED or LEARNING_RATE in {__file__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets fizbuz.pt")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    network = train()
    torch.save(network.state_dict(), folder / "fizbuz.pt")


if __name__ == "__main__":
    main()
