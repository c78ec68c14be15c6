"""MXNet's two files, written without MXNet: network (``NAME-symbol.json``) and parameters (``NAME-0000.params``).

::

    params   0x112 u64, 0 u64, count u64, arrays, count u64, names (each: length u64, bytes)
    array    0xF993FAC9 u32, 0 i32 (dense), rank i32, sizes i64..., 1 i32 and 0 i32 (CPU 0), 0 i32 (float32), values

All numbers are little-endian. A name is that of the symbol's variable behind ``arg:`` or, for what is not learned by
gradients, as the statistics of BatchNorm, ``aux:``. Source: MXNet 1.9.1, ``NDArray::Save`` and nnvm's ``JSONGraph``.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

#: Of the release whose files these are: a reader brings what older ones wrote up to date.
_VERSION = 10901
_LIST_MAGIC = 0x112
_ARRAY_MAGIC = 0xF993FAC9


class Symbol:
    """A network that is put together node by node; a node is known by its number, and has one output that counts."""

    def __init__(self) -> None:
        self._nodes: List[Dict[str, object]] = []
        self._names: Set[str] = set()

    def variable(self, name: str, shape: Optional[Sequence[int]] = None) -> int:
        """Add what gets its value from outside, and return its number.

        Args:
            shape: of a parameter, because not every operator lets MXNet find it out; None for an input.
        """
        attributes = {} if shape is None else {"attrs": {"__shape__": str(tuple(shape))}}
        return self._add({"op": "null", "name": name, **attributes, "inputs": []})

    def node(self, operator: str, name: str, inputs: Sequence[int], settings: Mapping[str, object]) -> int:
        """Add an operator over earlier nodes, and return its number."""
        attributes = {key: str(value) for key, value in settings.items()}
        wired = [[number, 0, 0] for number in inputs]
        return self._add({"op": operator, "name": name, "attrs": attributes, "inputs": wired})

    def free_name(self, wanted: str) -> str:
        """Return a name that no node has: the wanted one, or it with a number behind."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def to_json(self, heads: Sequence[int]) -> bytes:
        """Return the text of the file; ``heads`` are the nodes that answer."""
        told = {
            "nodes": self._nodes,
            "arg_nodes": [number for number, node in enumerate(self._nodes) if node["op"] == "null"],
            "heads": [[number, 0, 0] for number in heads],
            "attrs": {"mxnet_version": ["int", _VERSION]},
        }
        return json.dumps(told, indent=2).encode()

    def _add(self, node: Dict[str, object]) -> int:
        self._names.add(str(node["name"]))
        self._nodes.append(node)
        return len(self._nodes) - 1


def params_bytes(arguments: Mapping[str, Any], states: Mapping[str, Any]) -> bytes:
    """Return the content of a ``.params`` file.

    Args:
        arguments, states: numpy arrays by the name of their variable, saved as float32 with ``arg:`` and ``aux:``.
    """
    arrays = {f"arg:{name}": array for name, array in arguments.items()}
    arrays.update((f"aux:{name}", array) for name, array in states.items())
    parts = [struct.pack("<QQQ", _LIST_MAGIC, 0, len(arrays)), *map(_array_bytes, arrays.values())]
    parts.append(struct.pack("<Q", len(arrays)))
    for name in map(str.encode, arrays):
        parts += [struct.pack("<Q", len(name)), name]
    return b"".join(parts)


def stored_shape(array: Any) -> Tuple[int, ...]:
    """Return the shape of an array as MXNet will read it: one without dimensions would be none there."""
    return tuple(array.shape) or (1,)


def _array_bytes(array: Any) -> bytes:
    shape = stored_shape(array)
    head = struct.pack(f"<Iii{len(shape)}q", _ARRAY_MAGIC, 0, len(shape), *shape)
    return head + struct.pack("<iii", 1, 0, 0) + bytes(array.astype("<f4").tobytes())
