"""From a picture to the network's input, and from the numbers of its heads to boxes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from network import Head
from PIL import Image

#: What the network sees where there is no picture.
GREY = (128, 128, 128)
#: Candidates that are looked at, the most likely first; comparing all with all takes the square of it.
MOST_CANDIDATES = 300


class Found(NamedTuple):
    """What was found in one picture, the highest score first: boxes ``(n, 4)``, classes and scores ``(n,)``."""

    boxes: torch.Tensor
    classes: torch.Tensor
    scores: torch.Tensor


def letterbox(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Return a picture as large as it fits into the upper left of the input; the rest of that is grey.

    Args:
        image: RGB.
        size: width and height of the input.

    Returns:
        ``float32 (3, height, width)``, values 0..1.
    """
    share = 1 / reduction(image.size, size)
    fitting = max(1, round(image.width * share)), max(1, round(image.height * share))
    input_image = Image.new("RGB", size, GREY)
    input_image.paste(image.resize(fitting, Image.Resampling.BILINEAR))
    points = np.asarray(input_image, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(points.transpose(2, 0, 1))


def reduction(picture: tuple[int, int], size: tuple[int, int]) -> float:
    """Return how many points of a picture's side become one of the input's, both given as width and height."""
    return max(picture[0] / size[0], picture[1] / size[1])


def candidates(outputs: list[torch.Tensor], heads: list[Head], size: tuple[int, int]) -> torch.Tensor:
    """Return the boxes and scores that all cells of all heads propose.

    Args:
        outputs: of the network; see ``DarknetNetwork.forward``.
        size: width and height of the input.

    Returns:
        ``float32 (batch, candidates, 4 + classes)``: left, top, right, bottom in points of the input, then for each
        class the probability that the box holds a thing and that the thing is of the class.
    """
    return torch.cat([_of_head(output, head, size) for output, head in zip(outputs, heads, strict=True)], 1)


def _of_head(output: torch.Tensor, head: Head, size: tuple[int, int]) -> torch.Tensor:
    """A middle lies in its cell, a box has so many times the size of its anchor. Source: YOLOv3, 2.1."""
    rows, columns = output.shape[2:4]
    at = {"device": output.device, "dtype": output.dtype}
    cells = torch.stack(torch.meshgrid(torch.arange(columns, **at), torch.arange(rows, **at), indexing="xy"), -1)
    middle = (output[..., :2].sigmoid() + cells) * torch.tensor([size[0] / columns, size[1] / rows], **at)
    half = output[..., 2:4].exp() * torch.tensor(head.anchors, **at)[:, None, None] / 2
    scores = output[..., 4:5].sigmoid() * output[..., 5:].sigmoid()
    return torch.cat([middle - half, middle + half, scores], -1).flatten(1, 3)


def chosen(found: torch.Tensor, threshold: float, most_overlap: float) -> Found:
    """Return what a picture holds.

    Of two boxes of one class that overlap more than ``most_overlap`` (intersection over union) the one with the
    lower score is left out: non-maximum suppression.

    Args:
        found: the candidates of one picture, ``(candidates, 4 + classes)``.
        threshold: the least score.
    """
    scores, classes = found[:, 4:].max(1)
    order = scores.argsort(descending=True, stable=True)[:MOST_CANDIDATES]
    order = order[scores[order] >= threshold]
    boxes, classes, scores = found[order, :4], classes[order], scores[order]
    rivals = (overlaps(boxes, boxes) > most_overlap) & (classes[:, None] == classes)
    is_kept = torch.ones_like(classes, dtype=torch.bool)
    for index in range(len(order)):
        if is_kept[index]:
            is_kept[index + 1 :] &= ~rivals[index, index + 1 :]
    return Found(boxes[is_kept], classes[is_kept], scores[is_kept])


def overlaps(ones: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of each of ``(n, 4)`` boxes with each of ``(m, 4)``: ``(n, m)``."""
    low = torch.maximum(ones[:, None, :2], others[:, :2])
    high = torch.minimum(ones[:, None, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (ones, others)]
    return shared / (areas[0][:, None] + areas[1] - shared)
