"""The network of ``scene_match``: a picture and the words of a sentence in, the scores of both answers out."""

import torch
from scene_match_words import WORDS
from torch import nn

#: Kinds of shapes and colours that a thing may have, and rows and columns of cells that a picture is cut into.
SHAPES, COLOURS, CELLS = 4, 5, 8
#: Phrases of a sentence: "a red circle" and, behind a link, another one.
PHRASES = 2
#: What a cell tells: no thing or its shape, its colour, and where in the cell its middle is.
LOOKS = 1 + SHAPES + COLOURS + 2
#: By how much a thing farther out outweighs the others, and what weighs nothing, so that no share is of nothing.
OUTERMOST, LEAST_WEIGHT = 5.0, 1e-3
#: How clearly one place is before another: middles are a few hundredths of the picture apart, or more.
SHARPNESS = 8.0


class SceneMatchNetwork(nn.Module):
    """A convolutional tower looks for things, a recurrent one reads; what was read steers the judgement (FiLM).

    The picture's tower is taught first, by where the things of a scene are; the rest on what it sees. Between them
    each cell of the picture has the probability of each kind of thing and its place, and each phrase of the sentence
    the probability of each kind that it may mean.

    Source of the steering: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", 2018.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            *_step(3, 16, 2),
            *_step(16, 32, 2),
            *_step(32, 64, 2),
            *_step(64, 64, 1),
            *_step(64, 64, 1),
            nn.Conv2d(64, LOOKS, 1),
        )
        self.words = nn.Embedding(len(WORDS) + 1, 32)
        self.reader = nn.GRU(32, width, batch_first=True)
        self.turning = nn.Linear(width, PHRASES)
        self.meant = nn.Linear(width, SHAPES * COLOURS)
        self.steering = nn.Linear(width, 4 * width)
        self.first = nn.Linear(2 * PHRASES + 2 * PHRASES**2, width)
        self.second = nn.Linear(width, width)
        self.answer = nn.Linear(width, 2)
        row, column = torch.meshgrid(torch.arange(float(CELLS)), torch.arange(float(CELLS)), indexing="ij")
        self.register_buffer("corners", torch.stack([column, row]), persistent=False)

    def forward(self, pictures: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return scores, ``float32 (batch, 2)``: of no match and of a match.

        Args:
            pictures: ``float32 (batch, 3, 64, 64)``, values 0..1.
            words: numbers of words, ``int64 (batch, any)``, 0 before the first.
        """
        return self.judge(self.cells(self.tower(pictures)), *self.read(words))

    def cells(self, looks: torch.Tensor) -> torch.Tensor:
        """Return what is in each cell, ``float32 (batch, 64, 22)``: the probability of each kind, and its place.

        Args:
            looks: of the tower, ``float32 (batch, 12, 8, 8)``.
        """
        shapes = looks[:, : 1 + SHAPES].softmax(1)[:, 1:]
        colours = looks[:, 1 + SHAPES : -2].softmax(1)
        kinds = (shapes[:, :, None] * colours[:, None]).flatten(1, 2)
        places = (self.corners + looks[:, -2:].sigmoid()) / CELLS
        return torch.cat([kinds, places], 1).flatten(2).transpose(1, 2)

    def read(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the kinds that each phrase means, ``(batch, 2, 20)``, 0..1, and the whole, ``(batch, width)``.

        Args:
            words: as ``forward`` has them; each sentence has one at least.
        """
        steps, last = self.reader(self.words(words))
        turned = self.turning(steps).masked_fill((words == 0)[:, :, None], float("-inf")).softmax(1)
        return self.meant(turned.transpose(1, 2) @ steps).sigmoid(), last[0]

    def judge(self, cells: torch.Tensor, meant: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return the scores of both answers for what is in the cells and what was read."""
        found = cells[:, :, :-2] @ meant.transpose(1, 2)
        # Whether there is any, how many there are, and how far the last of a phrase's lies behind another's first.
        nearest, farthest = self.ends(found, cells[:, :, -2:])
        behind = torch.tanh(SHARPNESS * (farthest[:, None] - nearest[:, :, None]))
        told = torch.cat([found.amax(1), found.sum(1), behind.flatten(1)], 1)
        scale, shift, next_scale, next_shift = self.steering(whole).chunk(4, 1)
        told = torch.relu(self.first(told) * (1 + scale) + shift)
        return self.answer(torch.relu(self.second(told) * (1 + next_scale) + next_shift))

    def ends(self, found: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smallest and the largest place of what each phrase means, ``(batch, 2, 2)``, smoothly.

        Args:
            found: how likely it is in each cell, ``(batch, 64, 2)``.
            places: of the things in the cells, across and down, ``(batch, 64, 2)``, 0..1.
        """
        sides = torch.cat([1 - places, places], 2)[:, :, None]
        weights = found.square()[:, :, :, None] * (OUTERMOST * sides).exp()
        outermost = (weights * sides).sum(1) / (weights.sum(1) + LEAST_WEIGHT)
        return 1 - outermost[:, :, :2], outermost[:, :, 2:]


def _step(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
