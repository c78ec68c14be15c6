"""Writes the trained FizBuz network as an MXNet symbol and its parameters, by MXNet in an environment of its own."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml

from marserve.archive.uv import run_uv

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="fizbuz.pt, as fizbuz_torch/train.py writes it")
    parser.add_argument("--output", type=Path, required=True, help="folder that gets the two files")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    weights = torch.load(arguments.weights, weights_only=True)
    # The workers' interpreter and packages: what writes the files is what will read them.
    config = yaml.safe_load((FOLDER / "model-config.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "weights.npz"
        np.savez(arrays, **{name.replace(".", "_"): tensor.numpy() for name, tensor in weights.items()})
        command = ["run", "--isolated", "--no-project", "--python", config["python"]]
        command += [
            "--with-requirements",
            config["requirements"],
            "network.py",
            str(arrays),
            str(arguments.output.resolve() / "fizbuz"),
        ]
        failed = run_uv(command, FOLDER, lambda line: print(f"  {line}", flush=True))
    if failed is not None:
        raise SystemExit(f"MXNet's files cannot be written: {failed}")


if __name__ == "__main__":
    main()
