"""MXNet's files, byte by byte; the e2e tests have MXNet itself read them."""

from __future__ import annotations

import json
import struct

import numpy as np

from marserve.archive.mxnet_files import Symbol, params_bytes


def test_the_bytes_of_parameters() -> None:
    """Laid out by hand, after a file that MXNet 1.9.1 has written."""
    array = "c9faf993 00000000 01000000 0200000000000000 01000000 00000000 00000000 0000803f 00000040"
    number = "c9faf993 00000000 01000000 0100000000000000 01000000 00000000 00000000 0000c03f"
    names = "0500000000000000" + b"arg:a".hex() + "0500000000000000" + b"aux:b".hex()
    expected = f"1201000000000000 0000000000000000 0200000000000000 {array} {number} 0200000000000000 {names}"
    expected = expected.replace("c9faf993", struct.pack("<I", 0xF993FAC9).hex())

    # The second has no dimensions, and another type.
    found = params_bytes({"a": np.array([1, 2], np.float32)}, {"b": np.array(1.5, np.float64)})

    assert found.hex() == expected.replace(" ", "")


def test_the_text_of_a_symbol() -> None:
    symbol = Symbol()
    data, weight = symbol.variable("data"), symbol.variable("weight", (3,))
    dense = symbol.node("FullyConnected", "dense", [data, weight], {"num_hidden": 3, "no_bias": True})
    pool = symbol.node("Pooling", "pool", [dense], {"kernel": (2,)})

    told = json.loads(symbol.to_json([pool]))

    assert told["nodes"][data] == {"op": "null", "name": "data", "inputs": []}
    assert told["nodes"][weight]["attrs"] == {"__shape__": "(3,)"}
    assert told["nodes"][dense] == {
        "op": "FullyConnected",
        "name": "dense",
        "attrs": {"num_hidden": "3", "no_bias": "True"},
        "inputs": [[0, 0, 0], [1, 0, 0]],
    }
    assert told["nodes"][pool]["attrs"] == {"kernel": "(2,)"}
    assert (told["arg_nodes"], told["heads"]) == ([0, 1], [[3, 0, 0]])
    assert told["attrs"] == {"mxnet_version": ["int", 10901]}
    assert [symbol.free_name(name) for name in ("pool", "other")] == ["pool_2", "other"]
