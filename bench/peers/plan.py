"""What peers are asked, as data: a suite is one workload in one mode, who takes it and under which loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.peers.commands import Mode
from bench.peers.table import LOOP, PEERS, Peer

#: Seconds of a load that is not counted, before those of a workload; wrk takes no less.
WARM_UP = 1.0
#: Seconds that a peer takes to end, and that a load takes beside its own: an open one waits for what is late.
END, OVERHEAD, OVERHEAD_OPEN = 1.0, 0.15, 0.8
#: Connections at which a server's own maximum is taken.
MANY = 64


@dataclass(frozen=True)
class Suite:
    """One start a peer and round.

    Attributes:
        key, title: its name in results and in tables.
        workloads: keys, all of one archive; each gets all loads.
        peers: who takes part.
        closed: connections of the closed loads.
        rates: requests a second of the open loads that are the same for all.
        shares: of a peer's own maximum in this round, closed with ``MANY`` connections, as open loads.
        seconds: of each load.
        rounds: how often; open loads only in the first ``open_rounds``.
        scales_to: workers to scale to after the loads; 0 not to scale. Takes memory before and after.
        unit: ``rps``, or ``bytes`` where the bytes of a body, there and back, are what counts.
    """

    key: str
    title: str
    workloads: tuple[str, ...]
    peers: tuple[str, ...]
    mode: Mode = Mode()
    closed: tuple[int, ...] = (MANY,)
    rates: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    seconds: float = 2.0
    rounds: int = 3
    open_rounds: int = 2
    scales_to: int = 0
    unit: str = "rps"

    def open_loads(self, number: int) -> tuple[str, ...]:
        """Return the names of the open loads of a round, the first being 1."""
        if number > self.open_rounds:
            return ()
        return (*(f"rate {rate}" for rate in self.rates), *(f"share {share:g}" for share in self.shares))


ALL = tuple(key for key, peer in PEERS.items() if peer.launcher != LOOP)
SERVICES = tuple(key for key, peer in PEERS.items() if peer.runs_services and peer.launcher != LOOP)
BATCHING = tuple(key for key, peer in PEERS.items() if peer.batches)
OF_BYTES = tuple(key for key in SERVICES if PEERS[key].takes_bytes)
#: Peers that run a service in workers of its own: where it sleeps or computes, one request a worker is at work. Bare
#: loops are the most that they can do.
WITH_WORKERS = ("marserve", "torchserve", "multi-model-server", "mosec", "litserve", "loops")
#: Ray Serve takes seconds to start and is far from the first places: it is asked for small requests alone.
_NOT_RAY = tuple(key for key in OF_BYTES if key != "ray")

SUITES = (
    Suite(
        "small",
        "two layers, batch 1, one worker",
        ("two_layers",),
        ALL,
        closed=(1, 8, MANY, 512),
        rates=(500, 2000),
        shares=(0.2, 0.5, 0.8),
    ),
    Suite("batch", "two layers, batch up to 32, one worker", ("two_layers",), BATCHING, Mode(1, 32), (8, MANY)),
    Suite(
        "two",
        "two layers, batch 1, two workers",
        ("two_layers",),
        ("marserve", "torchserve", "mosec", "litserve", "fastapi", "flask", "asgi"),
        Mode(2, 1),
        rounds=2,
    ),
    Suite(
        "bodies",
        "noop with bodies, batch 1, one worker",
        ("echo_1k", "echo_100k", "echo_1m", "echo_10m"),
        _NOT_RAY,
        closed=(8,),
        rounds=2,
        unit="bytes",
    ),
    Suite("digits", "digits, PNG upload, batch 1, one worker", ("digits",), _NOT_RAY, closed=(8,), rounds=2),
    Suite("sleep_5", "sleep of 5 ms, two workers", ("sleep_5",), WITH_WORKERS, Mode(2, 1), rounds=1, seconds=3.0),
    Suite("sleep_50", "sleep of 50 ms, two workers", ("sleep_50",), WITH_WORKERS, Mode(2, 1), rounds=1, seconds=4.0),
    Suite(
        "encoder",
        "text encoder, batch 1, one worker",
        ("encoder",),
        (*WITH_WORKERS, "asgi"),
        closed=(8,),
        rounds=1,
        seconds=8.0,
    ),
    Suite(
        "encoder_32",
        "text encoder, batch up to 32, one worker",
        ("encoder",),
        WITH_WORKERS,
        Mode(1, 32),
        rounds=1,
        # A batch takes a third of a second, and one that ends after the load counts nothing.
        seconds=12.0,
    ),
    Suite(
        "weight",
        "model of 400 MB, from one worker to four",
        ("heavy",),
        tuple(key for key in SERVICES if key not in ("fastapi", "ray")),
        closed=(),
        rounds=1,
        scales_to=4,
    ),
)

#: What is left of the plan in five minutes.
_QUICK = {
    "small": {"closed": (1, MANY), "rates": (), "shares": (0.5,)},
    "batch": {"closed": (MANY,)},
    "bodies": {"workloads": ("echo_1k", "echo_1m", "echo_10m")},
    "digits": {},
    "weight": {"peers": ("marserve", "torchserve", "mosec", "asgi")},
}
QUICK = tuple(
    replace(suite, rounds=1, open_rounds=1, seconds=1.0, **_QUICK[suite.key])  # type: ignore[arg-type]
    for suite in SUITES
    if suite.key in _QUICK
)

#: The fewest minutes that the whole and the quick run may take at most.
LONGEST, LONGEST_QUICK = 1800.0, 300.0


def name_of(suite: str, workload: str, peer: str, load: str) -> str:
    """Return the name of a cell: ``small/two_layers/mosec@64``."""
    return f"{suite}/{workload}/{peer}@{load}"


def cells_of(suite: Suite, peer: str) -> Iterator[str]:
    """Return the names of all cells that a peer fills in a suite's first round."""
    for workload in suite.workloads:
        for load in (*map(str, suite.closed), *suite.open_loads(1)):
            yield name_of(suite.key, workload, peer, load)
    yield name_of(suite.key, suite.workloads[0], peer, "start")
    if suite.scales_to:
        yield name_of(suite.key, suite.workloads[0], peer, "scale")


def expected_seconds(suites: tuple[Suite, ...]) -> float:
    """Return how long suites take, reckoned by the usual starts of peers."""
    return sum(
        _of_one(suite, PEERS[key], number)
        for suite in suites
        for number in range(1, suite.rounds + 1)
        for key in suite.peers
    )


def _of_one(suite: Suite, peer: Peer, number: int) -> float:
    closed = (WARM_UP if suite.closed else 0.0) + len(suite.closed) * (suite.seconds + OVERHEAD)
    opened = len(suite.open_loads(number)) * (suite.seconds + OVERHEAD_OPEN)
    # Who cannot be scaled while it runs is started once more with all workers.
    scaling = (peer.start * (1.0 if peer.scaling else 2.0) + END) if suite.scales_to else 0.0
    return peer.start + END + len(suite.workloads) * (closed + opened) + scaling
