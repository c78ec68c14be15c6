"""The figure of detectors: mean average precision, here at an intersection over union of 0.5."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from detection import Found, overlaps

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shapes_scenes import SHAPES, Scene

#: A box is right when it shares so much of its union with that of a thing.
LEAST_OVERLAP = 0.5


def mean_average_precision(found: list[Found], scenes: list[Scene]) -> float:
    """Return the mean of the classes' average precisions, 0..1."""
    areas = []
    for number, shape in enumerate(SHAPES):
        judged: list[tuple[float, bool]] = []
        count = 0
        for one, scene in zip(found, scenes, strict=True):
            things = torch.tensor([thing.box for thing in scene.things if thing.shape == shape]).reshape(-1, 4)
            is_meant = one.classes == number
            judged += judge(one.boxes[is_meant], one.scores[is_meant], things)
            count += len(things)
        areas.append(average_precision(judged, count))
    return sum(areas) / len(areas)


def judge(boxes: torch.Tensor, scores: torch.Tensor, things: torch.Tensor) -> list[tuple[float, bool]]:
    """Return score and rightness of each box of one class; a thing can be found once."""
    judged = []
    is_free = torch.ones(len(things))
    for shared, score in zip(overlaps(boxes, things), scores.tolist(), strict=True):
        is_right = bool((shared * is_free >= LEAST_OVERLAP).any())
        if is_right:
            is_free[(shared * is_free).argmax()] = 0
        judged.append((score, is_right))
    return judged


def average_precision(judged: list[tuple[float, bool]], count: int) -> float:
    """Return the area below the precision over the recall, where no precision is below one further right.

    Args:
        judged: score and rightness of each box.
        count: things that there were to find.
    """
    by_score = sorted(judged, key=lambda each: -each[0])
    rights = torch.tensor([is_right for _, is_right in by_score], dtype=torch.float64)
    precision = rights.cumsum(0) / torch.arange(1, len(rights) + 1)
    best = precision.flip(0).cummax(0).values.flip(0) if len(rights) else precision
    return float((best * rights).sum() / max(1, count))
