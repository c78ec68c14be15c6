"""Writes the trained FizBuz network as a TorchScript program, which needs no Python file beside it."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
import zipfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "fizbuz_torch"))
from network import FizBuzNetwork

#: Entries that hold the full path of every source, the environment's included, for the traces of errors; and an
#: id that is a checksum of all. torch loads without them.
PLACES = (".debug_pkl", ".data/serialization_id")


def without_places(program: bytes) -> bytes:
    """Return a TorchScript file without ``PLACES``.

    With them the bytes would differ from folder to folder, and tell who gets the archive where it was built.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as whole, zipfile.ZipFile(kept, "w") as rest:
        for entry in whole.infolist():
            if not entry.filename.endswith(PLACES):
                rest.writestr(zipfile.ZipInfo(entry.filename), whole.read(entry))
    return kept.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="fizbuz.pt, as fizbuz_torch/train.py writes it")
    parser.add_argument("--output", type=Path, required=True, help="folder that gets fizbuz_script.pt")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    network = FizBuzNetwork()
    network.load_state_dict(torch.load(arguments.weights, weights_only=True))
    # torch asks authors to move on from TorchScript; archives that hold it are many, so this one stays.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")
    program = io.BytesIO()
    torch.jit.save(torch.jit.script(network.eval()), program)
    (arguments.output / "fizbuz_script.pt").write_bytes(without_places(program.getvalue()))


if __name__ == "__main__":
    main()
