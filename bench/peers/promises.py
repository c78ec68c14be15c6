"""What marserve is held to beside its peers: ratios of one run, each with the bound that it should keep."""

from __future__ import annotations

from dataclasses import dataclass

from bench.peers.table import OURS, PEERS

FIGURES = {"rps": "requests/s", "bytes": "bytes/s", "p50": "median", "p99": "99 %"}


@dataclass(frozen=True)
class Promise:
    """marserve's figure divided by another contender's, or by its own under another load.

    Attributes:
        suite, workload, load, figure: marserve's side.
        peer: the other side; marserve itself where ``other`` names a cell of its own.
        bound: at least this, or at most where ``is_ceiling``.
        other: suite, load and figure of the other side, where they are not the same.
    """

    suite: str
    load: str
    figure: str
    peer: str
    bound: float
    is_ceiling: bool = False
    workload: str = "two_layers"
    other: tuple[str, str, str] = ("", "", "")

    @property
    def divisor(self) -> tuple[str, str, str]:
        """Suite, load and figure of the other side."""
        suite, load, figure = self.other
        return suite or self.suite, load or self.load, figure or self.figure

    @property
    def title(self) -> str:
        """What is compared, in words."""
        text = f"{self._words(self.suite, self.load, self.figure)}: marserve / "
        return text + (self._words(*self.divisor) if self.peer == OURS else PEERS[self.peer].title)

    def _words(self, suite: str, load: str, figure: str) -> str:
        connections = f"{load} connection{'s' * (load != '1')}"
        return f"{suite}, {self.workload}, {connections}, {FIGURES[figure]}"

    def is_kept(self, ratio: float) -> bool:
        """Tell whether a ratio keeps the promise."""
        return ratio <= self.bound if self.is_ceiling else ratio >= self.bound


PROMISES = (
    Promise("small", "64", "rps", "torchserve", 20.0),
    Promise("small", "64", "rps", "mosec", 4.5),
    Promise("small", "64", "rps", "fastapi", 3.2),
    Promise("small", "64", "rps", "asgi", 1.3),
    Promise("small", "1", "p50", "torchserve", 0.25, True),
    Promise("small", "1", "p50", "mosec", 0.7, True),
    Promise("small", "1", "p50", "asgi", 0.9, True),
    Promise("batch", "64", "rps", "torchserve", 7.0),
    Promise("batch", "64", "rps", "mosec", 1.6),
    Promise("batch", "8", "rps", "marserve", 1.0, other=("small", "", "")),
    Promise("small", "512", "rps", "marserve", 0.9, other=("", "64", "")),
    Promise("small", "512", "p99", "marserve", 2.0, True, other=("", "", "p50")),
    Promise("sleep_50", "64", "rps", "loops", 0.97, workload="sleep_50"),
    Promise("encoder", "8", "rps", "loops", 0.98, workload="encoder"),
    Promise("encoder_32", "64", "rps", "loops", 0.98, workload="encoder"),
    *(
        Promise("bodies", "8", "bytes", peer, bound, workload=workload)
        for workload in ("echo_1m", "echo_10m")
        for peer, bound in (("torchserve", 2.0), ("multi-model-server", 2.0), ("mosec", 2.0), ("asgi", 0.5))
    ),
)
