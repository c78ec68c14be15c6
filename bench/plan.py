"""What is measured and what it should come to: the two tables that ``bench.run`` works through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.services.build import SLOW, TWO_LAYERS, Subject

#: Connections of the heavy load, and of the light one that shows a request's own latency.
MANY, ONE = 64, 1


@dataclass(frozen=True)
class Contender:
    """Something that answers for a subject.

    Attributes:
        key: its name in results.
        kind: ``marserve``, ``uvicorn`` or ``loop``; see ``bench/servers.py``.
        title: its name in tables.
        connections: a load each; none for a loop, which needs no client.
        module: for marserve, what is run in the place of its command.
        settings: for marserve, beside ``marserve.properties``; the running server is asked whether it kept them.
        application: for uvicorn, ``module:name``.
        processes: for a loop, how many run at once.
        stretch: how many times as long as others it is measured; the first answers of a slow service come late, and
            count against it the less the longer the load lasts.
        shows_rest: whether its memory and its time to the first answer are taken.
        beside: key of the contender that runs at the same time, loads taking turns between both each second: where
            they differ by a tenth, a machine that slows down between two longer loads would say more than they do.
    """

    key: str
    kind: str
    title: str
    subject: Subject
    connections: tuple[int, ...] = ()
    module: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    application: str = ""
    processes: int = 1
    stretch: int = 1
    shows_rest: bool = False
    beside: str = ""


CONTENDERS = (
    Contender(
        "marserve",
        "marserve",
        "marserve, batch 1",
        TWO_LAYERS,
        (ONE, MANY),
        settings={"batch_size": "1", "default_workers_per_model": "1"},
        shows_rest=True,
    ),
    Contender(
        "logged",
        "marserve",
        "marserve, batch 1, with access log",
        TWO_LAYERS,
        (MANY,),
        settings={"batch_size": "1", "default_workers_per_model": "1", "access_log": "true", "log_level": "info"},
        beside="blind",
    ),
    Contender(
        "blind",
        "marserve",
        "marserve, batch 1, without metrics or access log",
        TWO_LAYERS,
        (MANY,),
        module="bench.floors.unobserved",
        settings={"batch_size": "1", "default_workers_per_model": "1"},
    ),
    Contender(
        "asgi",
        "uvicorn",
        "bare ASGI function on uvicorn",
        TWO_LAYERS,
        (ONE, MANY),
        application="bench.floors.asgi:app",
    ),
    Contender(
        "fastapi",
        "uvicorn",
        "FastAPI on uvicorn",
        TWO_LAYERS,
        (ONE, MANY),
        application="bench.floors.fastapi_app:app",
    ),
    Contender(
        "marserve_32",
        "marserve",
        "marserve, batch up to 32",
        TWO_LAYERS,
        (MANY,),
        settings={"batch_size": "32", "default_workers_per_model": "1"},
    ),
    Contender(
        "marserve_slow",
        "marserve",
        "marserve, 20 ms a call, two workers",
        SLOW,
        (MANY,),
        settings={"batch_size": "1", "default_workers_per_model": "2"},
        stretch=3,
    ),
    Contender("loops", "loop", "two bare loops, 20 ms a call", SLOW, processes=2, stretch=3),
)

#: Contenders whose ratios say in half a minute whether the hot path has become slower.
BRIEF = ("marserve", "asgi", "fastapi", "marserve_32")

#: A cell is a contender under one load: ``asgi@64``; or ``marserve@rest``, and ``loops@0`` without a client.
Cell = str


def cell(contender: str, load: int | str) -> Cell:
    """Return the name of a cell."""
    return f"{contender}@{load}"


@dataclass(frozen=True)
class Target:
    """A figure that is promised: one cell's own, or its share of another cell's.

    Attributes:
        title: what is compared.
        figure: ``rps``, ``p50``, or one of those taken at rest.
        of: the cell.
        to: the cell to divide by, None for the figure itself.
        bound: what is promised: at least this much, or at most when ``is_ceiling``.
        unit: ``x``, ``s``, ``MB`` or ``yes/no``; a figure in bytes is shown in MB.
    """

    title: str
    figure: str
    of: Cell
    to: Cell | None
    bound: float
    is_ceiling: bool = False
    unit: str = "x"

    def is_reached(self, value: float) -> bool:
        """Whether ``value`` keeps the promise."""
        return value <= self.bound if self.is_ceiling else value >= self.bound


TARGETS = (
    Target(
        "batch 1, 64 connections, rps: marserve / bare ASGI", "rps", cell("marserve", MANY), cell("asgi", MANY), 1.2
    ),
    Target(
        "batch 1, 64 connections, rps: marserve / FastAPI", "rps", cell("marserve", MANY), cell("fastapi", MANY), 3.0
    ),
    Target(
        "batch up to 32, 64 connections, rps: marserve / bare ASGI",
        "rps",
        cell("marserve_32", MANY),
        cell("asgi", MANY),
        2.5,
    ),
    Target(
        "1 connection, median latency: marserve / bare ASGI",
        "p50",
        cell("marserve", ONE),
        cell("asgi", ONE),
        1.0,
        is_ceiling=True,
    ),
    Target(
        "batch 1, 64 connections, rps: with metrics and access log / without both",
        "rps",
        cell("logged", MANY),
        cell("blind", MANY),
        0.9,
    ),
    Target(
        "20 ms a call, two workers, 64 connections, rps: marserve / two bare loops",
        "rps",
        cell("marserve_slow", MANY),
        cell("loops", 0),
        0.97,
    ),
    Target("server process at rest, resident", "resident", cell("marserve", "rest"), None, 60e6, True, "MB"),
    Target("torch loaded in the server process", "has_torch", cell("marserve", "rest"), None, 0.0, True, "yes/no"),
    Target(
        "start to first answer, ONNX archive, empty cache",
        "first_answer",
        cell("marserve", "rest"),
        None,
        1.0,
        True,
        "s",
    ),
)
