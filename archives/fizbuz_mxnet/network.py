"""The FizBuz network in MXNet's words, written with trained weights; runs where MXNet is, which torch is not."""

import sys

import mxnet
import numpy as np


def symbol() -> mxnet.symbol.Symbol:
    """Return the network, ``data`` of ``float32 (batch, 10)`` to ``float32 (batch, 4)``."""
    hidden = mxnet.symbol.FullyConnected(mxnet.symbol.var("data"), num_hidden=100, name="hidden")
    active = mxnet.symbol.Activation(hidden, act_type="relu", name="active")
    return mxnet.symbol.FullyConnected(active, num_hidden=4, name="scores")


def main() -> None:
    """Write ``PREFIX-symbol.json`` and ``PREFIX-0000.params`` from an ``.npz`` of the weights by MXNet's names."""
    weights, prefix = sys.argv[1:]
    arguments = {name: mxnet.nd.array(values) for name, values in sorted(np.load(weights).items())}
    mxnet.model.save_checkpoint(prefix, 0, symbol(), arguments, {})


if __name__ == "__main__":
    main()
