"""Writes the trained FizBuz network as a TorchScript program, which needs no Python file beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "fizbuz_torch"))
from network import FizBuzNetwork
from torchscript import save_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="fizbuz.pt, as fizbuz_torch/train.py writes it")
    parser.add_argument("--output", type=Path, required=True, help="folder that gets fizbuz_script.pt")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    network = FizBuzNetwork()
    network.load_state_dict(torch.load(arguments.weights, weights_only=True))
    save_script(network, arguments.output / "fizbuz_script.pt")


if __name__ == "__main__":
    main()
