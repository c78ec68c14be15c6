"""Workers of several processes: what torchrun is told, and which GPUs a worker gets. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marserve.supervisor.process import WORKER, Program

#: The kinds whose workers are started by torchrun, one process a rank. A ``custom`` service makes its own processes.
RANKED = frozenset(("pp", "tp", "pptp"))
#: The kinds of which every rank gets every batch; of the others only the first rank gets any.
FANNED_OUT = frozenset(("tp", "pptp"))
#: What the agent of the ranks runs; its arguments are torchrun's.
AGENT = "from marserve.worker.agent import main; main()"
#: What pins a worker to cores before it becomes one; its arguments are those of ``torch.backends.xeon.run_cpu``.
PINNED = "from marserve.worker.pinned import main; main()"


@dataclass(frozen=True, slots=True)
class Parallel:
    """How the work of one worker is spread. Source: TorchServe's ``parallelType``, ``parallelLevel``, ``torchrun``.

    Attributes:
        kind: ``pp``, ``tp``, ``pptp`` or ``custom``; "" for an ordinary worker.
        level: GPUs of a worker, and its processes unless it is ``custom``; 0 for an ordinary worker.
        options: what torchrun is told besides, by its option's name without dashes.
        thread_count: threads of each rank.
    """

    kind: str = ""
    level: int = 0
    options: Mapping[str, str] | None = None
    thread_count: int = 1

    @property
    def has_ranks(self) -> bool:
        """Whether a worker is several processes that torchrun starts."""
        return self.level > 0 and self.kind in RANKED

    @property
    def is_fanned_out(self) -> bool:
        """Whether every rank gets every batch."""
        return self.level > 0 and self.kind in FANNED_OUT


def torchrun_arguments(parallel: Parallel, model: str, number: int, log_folder: str) -> tuple[str, ...]:
    """Return torchrun's options for one worker.

    Its options are written with underscores, which versions before 2.0 want. A rank that dies is not started again
    by torchrun (``max_restarts``): the worker as a whole is, by us. On one machine torchrun meets at a port of the
    system's choice: two workers at its fixed default would be each other's hosts.
    """
    asked = dict(parallel.options or {})
    backend = asked.setdefault("rdzv_backend", "c10d")
    if backend == "static":
        asked.setdefault("master_port", str(number))
    elif backend == "c10d" and asked.get("nnodes", "1") == "1":
        asked.setdefault("rdzv_endpoint", "localhost:0")
    told = {
        "nnodes": "1",
        **asked,
        "nproc_per_node": str(parallel.level),
        "rdzv_id": f"{model}_{number}",
        "max_restarts": "0",
        "log_dir": log_folder,
    }
    return tuple(word for name, value in told.items() for word in (f"--{name}", value))


def program_of(
    parallel: Parallel, pinning: Sequence[str] | None, model: str, number: int, count: int, log_folder: str
) -> Program:
    """Return what the process of a worker runs.

    Args:
        pinning: arguments for ``torch.backends.xeon.run_cpu``; None starts workers without it.
        number, count: of this worker, and of all that share the cores out. Who is replaced keeps its number.
    """
    if parallel.has_ranks:
        return Program(AGENT, torchrun_arguments(parallel, model, number, log_folder))
    if pinning is None:
        return WORKER
    share = ("--ninstances", str(count), "--rank", str(number % count)) if count > 1 else ()
    return Program(PINNED, (*pinning, *share))


def device_group(gpu_ids: Sequence[int], level: int, turn: int) -> tuple[int, ...]:
    """Return the GPUs of a worker that needs ``level`` of them: neighbours, group by group in turn.

    Where there are fewer than that it gets them all, as its service may still know what to do.
    """
    count = max(1, len(gpu_ids) // level)
    first = turn % count * level
    return tuple(gpu_ids[first : first + level])


def visible_devices(devices: Sequence[int], visible: str | None) -> str:
    """Return ``CUDA_VISIBLE_DEVICES`` for a worker; ``visible`` is the server's own, which numbers its devices."""
    names = [name.strip() for name in visible.split(",")] if visible else []
    return ",".join(names[device] if device < len(names) else str(device) for device in devices)


def parallel_environment(parallel: Parallel, devices: Sequence[int], visible: str | None) -> dict[str, str]:
    """Return what the environment of a worker holds besides: its GPUs, and the threads of its ranks."""
    found = {}
    if devices:
        found["CUDA_VISIBLE_DEVICES"] = visible_devices(devices, visible)
    if parallel.has_ranks:
        found["OMP_NUM_THREADS"] = str(parallel.thread_count)
    return found
