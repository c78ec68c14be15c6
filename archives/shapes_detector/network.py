"""Darknet's files: a network from a ``.cfg``, weights from and to a ``.weights``; what YOLOv3-tiny uses, no more."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import nn

#: Each section's keys, and what holds where a file is silent; "" where it has to speak.
KEYS = {
    "net": {"width": "", "height": "", "channels": ""},
    "convolutional": {
        "filters": "",
        "size": "",
        "activation": "",
        "stride": "1",
        "pad": "0",
        "batch_normalize": "0",
    },
    "maxpool": {"size": "", "stride": ""},
    "route": {"layers": ""},
    "upsample": {"stride": ""},
    "yolo": {"mask": "", "anchors": "", "classes": "", "num": ""},
}
#: Keys that only say how Darknet itself would train the network; they are read over.
OF_TRAINING = {
    "net": (
        *("batch", "subdivisions", "momentum", "decay", "angle", "saturation", "exposure", "hue", "learning_rate"),
        *("burn_in", "max_batches", "policy", "steps", "scales"),
    ),
    "yolo": ("jitter", "ignore_thresh", "truth_thresh", "random"),
}
#: Slope of Darknet's ``leaky`` below zero.
LEAK = 0.1
#: The version that is written. From 0.2 on the count of pictures takes eight bytes, four before.
VERSION = (0, 2, 0)
#: Numbers of a candidate that belong to no class: its box (4) and its objectness.
BOX_AND_OBJECTNESS = 5


class DarknetError(ValueError):
    """A file that cannot be used; the message says which, where, and what was expected."""


@dataclass
class Section:
    """One layer of a ``.cfg``, or its ``[net]``.

    Attributes:
        place: file and line where it begins, for messages.
        values: text by key.
        places: file and line by key.
    """

    kind: str
    place: str
    values: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, value: str, place: str) -> None:
        """Take a line ``key=value``."""
        if key in self.values:
            raise DarknetError(f"{place}: [{self.kind}] has {key!r} a second time.")
        if key not in KEYS[self.kind] and key not in OF_TRAINING.get(self.kind, ()):
            known = ", ".join(KEYS[self.kind])
            raise DarknetError(f"{place}: [{self.kind}] has an unknown key {key!r}; the reader knows {known}.")
        self.values[key], self.places[key] = value, place

    def text(self, key: str) -> str:
        """Return the value of a key of ``KEYS``."""
        value = self.values.get(key) or KEYS[self.kind][key]
        if not value:
            raise DarknetError(f"{self.place}: [{self.kind}] does not say its {key!r}.")
        return value

    def numbers(self, key: str) -> list[int]:
        """Return a value that is a list of whole numbers with commas between them."""
        try:
            return [int(part) for part in self.text(key).split(",")]
        except DarknetError:
            raise
        except ValueError:
            self.refuse(key, "whole numbers")

    def number(self, key: str, least: int = 1, most: int = 2**16) -> int:
        """Return a value that is one whole number."""
        numbers = self.numbers(key)
        if len(numbers) != 1 or not least <= numbers[0] <= most:
            self.refuse(key, f"one whole number from {least} to {most}")
        return numbers[0]

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise the error that a value is not what was expected."""
        place = self.places.get(key, self.place)
        raise DarknetError(f"{place}: expected {key} to be {expected}, got {self.text(key)!r}.")


def read_sections(cfg: Path) -> list[Section]:
    """Return the sections of a ``.cfg``, ``[net]`` first.

    Raises:
        DarknetError: it holds a layer or a key that this reader does not know, or a line that is neither.
    """
    sections: list[Section] = []
    for count, line in enumerate(cfg.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        text, place = "".join(line.split()), f"{cfg.name}, line {count}"  # Darknet, too, drops all blanks
        if not text or text[0] in "#;":
            continue
        key, equals, value = text.partition("=")
        if text[0] == "[":
            sections.append(_section(text, place, is_first=not sections))
        elif equals and sections:
            sections[-1].add(key, value, place)
        else:
            raise DarknetError(f"{place}: expected a layer in brackets or a line key=value, got {text!r}.")
    if len(sections) < 2:
        raise DarknetError(f"{cfg.name} holds no layers.")
    return sections


def _section(text: str, place: str, is_first: bool) -> Section:
    kind = text[1:].removesuffix("]")
    if kind not in KEYS:
        known = ", ".join(f"[{name}]" for name in KEYS)
        raise DarknetError(f"{place}: unknown layer {text}; the reader knows {known}.")
    if is_first != (kind == "net"):
        raise DarknetError(f"{place}: got {text}; a file begins with [net] and has no other one.")
    return Section(kind, place)


@dataclass(frozen=True)
class Head:
    """What a ``[yolo]`` layer says of the numbers before it.

    Attributes:
        anchors: width and height in points of the input, of each box that a cell may hold.
        classes: how many there are.
    """

    anchors: tuple[tuple[int, int], ...]
    classes: int


class DarknetNetwork(nn.Module):
    """The network of a ``.cfg``: pictures ``float32 (batch, channels, height, width)``, values 0..1, to its heads.

    Attributes:
        size: width and height of the input.
        heads: what the ``[yolo]`` layers say, in the order of the file.
        seen: pictures that the weights have been trained on, as their file says.

    Raises:
        DarknetError: the file holds what this reader does not know, or says too little.
    Source: Darknet's ``parser.c``.
    """

    def __init__(self, cfg: Path) -> None:
        super().__init__()
        net, *sections = read_sections(cfg)
        self.size = net.number("width"), net.number("height")
        self.seen = 0
        self.heads: list[Head] = []
        self.layers = nn.ModuleList()
        self._is_head = [section.kind == "yolo" for section in sections]
        #: Of each ``[route]`` the layers that it joins; every other layer reads the one before it.
        self._joined: dict[int, list[int]] = {}
        channels: list[int] = []
        for index, section in enumerate(sections):
            before = channels[-1] if channels else net.number("channels")
            layer, count = LAYERS[section.kind](section, before)
            if section.kind == "route":
                self._joined[index] = _joined(section, index)
                count = sum(channels[source] for source in self._joined[index])
            elif section.kind == "yolo":
                self.heads.append(_head(section, before))
            self.layers.append(layer)
            channels.append(count)

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Return ``float32 (batch, anchors, rows, columns, 5 + classes)`` of each head: box, objectness, classes.

        The numbers are as the convolution before the head gives them.
        """
        current = pictures
        outputs: list[torch.Tensor] = []
        for index, layer in enumerate(self.layers):
            joined = self._joined.get(index)
            current = torch.cat([outputs[source] for source in joined], 1) if joined else layer(current)
            outputs.append(current)
        found = [output for output, is_head in zip(outputs, self._is_head, strict=True) if is_head]
        return [
            output.unflatten(1, (len(head.anchors), -1)).permute(0, 1, 3, 4, 2)
            for output, head in zip(found, self.heads, strict=True)
        ]

    def load_weights(self, path: Path) -> None:
        """Take the weights of a file.

        Raises:
            DarknetError: it holds more or fewer numbers than the network has.
        """
        data = path.read_bytes()
        if len(data) < struct.calcsize("<3iq"):
            raise DarknetError(f"{path.name} is no Darknet weights file: it ends after {len(data)} bytes.")
        major, minor, _ = struct.unpack_from("<3i", data)
        header = "<3iq" if major * 10 + minor >= 2 else "<3ii"
        begin = struct.calcsize(header)
        tensors = list(self._tensors())
        counts = [tensor.numel() for tensor in tensors]
        if len(data) != begin + 4 * sum(counts):
            got = (len(data) - begin) / 4
            raise DarknetError(f"{path.name}: expected {sum(counts)} numbers after the header, got {got:.10g}.")
        self.seen = struct.unpack_from(header, data)[3]
        numbers = torch.from_numpy(np.frombuffer(data, "<f4", offset=begin).astype(np.float32))
        with torch.no_grad():
            for tensor, part in zip(tensors, numbers.split(counts), strict=True):
                tensor.copy_(part.view_as(tensor))

    def save_weights(self, path: Path) -> None:
        """Write the weights into a file, which is there when it is whole and not before."""
        partial = path.with_name(f"{path.name}.partial")
        with open(partial, "wb") as file:
            file.write(struct.pack("<3iq", *VERSION, self.seen))
            for tensor in self._tensors():
                file.write(tensor.detach().cpu().numpy().astype("<f4").tobytes())
        os.replace(partial, path)

    def _tensors(self) -> Iterator[torch.Tensor]:
        """Yield what a weights file holds, in its order."""
        for layer in self.layers:
            first, *rest = layer if isinstance(layer, nn.Sequential) else [layer]
            if not isinstance(first, nn.Conv2d):
                continue
            if first.bias is None:
                norm = rest[0]
                yield from (norm.bias, norm.weight, norm.running_mean, norm.running_var)
            else:
                yield first.bias
            yield first.weight


def _convolutional(section: Section, before: int) -> tuple[nn.Module, int]:
    filters, size = section.number("filters"), section.number("size")
    padding = size // 2 if section.number("pad", 0, 1) else 0
    is_normalized = section.number("batch_normalize", 0, 1) == 1
    activation = section.text("activation")
    if activation not in ("leaky", "linear"):
        section.refuse("activation", "leaky or linear")
    layers: list[nn.Module] = [
        nn.Conv2d(before, filters, size, section.number("stride"), padding, bias=not is_normalized)
    ]
    layers += [nn.BatchNorm2d(filters)] if is_normalized else []
    layers += [nn.LeakyReLU(LEAK)] if activation == "leaky" else []
    return nn.Sequential(*layers), filters


def _maxpool(section: Section, before: int) -> tuple[nn.Module, int]:
    stride = section.number("stride", 1, 2)
    pool = nn.MaxPool2d(section.number("size", 2, 2), stride, ceil_mode=True)
    if stride == 2:
        return pool, before
    # Darknet lets the window look over the right and the lower border, so that the size stays.
    return nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), float("-inf")), pool), before


def _upsample(section: Section, before: int) -> tuple[nn.Module, int]:
    return nn.Upsample(scale_factor=section.number("stride")), before


def _no_numbers(section: Section, before: int) -> tuple[nn.Module, int]:
    """A layer that joins, or names, what others have made."""
    return nn.Identity(), before


#: From a section and the channels before it to the layer and its own.
LAYERS: dict[str, Callable[[Section, int], tuple[nn.Module, int]]] = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "upsample": _upsample,
    "route": _no_numbers,
    "yolo": _no_numbers,
}


def _joined(section: Section, index: int) -> list[int]:
    """Return the layers that a ``[route]`` joins; numbers below zero count back from it."""
    joined = [number + index if number < 0 else number for number in section.numbers("layers")]
    if not all(0 <= source < index for source in joined):
        section.refuse("layers", f"layers before it, which is layer {index}")
    return joined


def _head(section: Section, before: int) -> Head:
    numbers, mask, classes = section.numbers("anchors"), section.numbers("mask"), section.number("classes")
    count = section.number("num")
    if len(numbers) != 2 * count or min(numbers) < 1:
        section.refuse("anchors", f"{count} pairs of width and height, as num says")
    if not all(0 <= number < count for number in mask):
        section.refuse("mask", f"numbers of anchors, 0 to {count - 1}")
    expected = len(mask) * (BOX_AND_OBJECTNESS + classes)
    if before != expected:
        raise DarknetError(f"{section.place}: [yolo] needs {expected} filters before it, and gets {before}.")
    anchors = list(zip(numbers[::2], numbers[1::2], strict=True))
    return Head(tuple(anchors[number] for number in mask), classes)
