"""One worker of a pool: its process, its link, its state, and the autopsy once it is dead."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from marserve.batching.job import Job
from marserve.errors import LoadError, OutOfMemory, ProtocolError, ServeError, WorkerDied, by_kind
from marserve.supervisor.gate import Gate
from marserve.supervisor.lifecycle import WorkerState, check_move
from marserve.supervisor.link import Link
from marserve.supervisor.process import WORKER, Exit, Launch, Process, Program, Starter

log = logging.getLogger("marserve.worker")

#: How long a worker that was told to stop may take for its own end, seconds.
LAST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Autopsy:
    """Why a worker is dead.

    Attributes:
        reason: one sentence: what ended it, and in which step.
        exit: exit code or signal; None when it is not known yet.
        job_ids: the jobs that it was running.
        log: the last lines that it wrote, oldest first.
    """

    reason: str
    exit: Exit | None
    job_ids: tuple[int, ...] = ()
    log: tuple[str, ...] = field(default=(), repr=False)


class WorkerOwner(Protocol):
    """Who is told what becomes of a worker: its pool."""

    def worker_ready(self, worker: Worker) -> None:
        """It has loaded its service and waits for jobs."""

    def worker_answered(self, worker: Worker) -> None:
        """It has answered batches and has room."""

    def worker_load_failed(self, worker: Worker, error: ServeError) -> None:
        """Its service does not load; another try would end the same way."""

    def worker_ended(self, worker: Worker, suspects: list[Job], innocents: list[Job]) -> None:
        """Its process is gone, as it should (state ``gone``) or not (``died``)."""

    def worker_metrics(self, metrics: bytes) -> None:
        """Its service has added metrics."""

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        """Jobs have their answers."""


class Worker:
    """A worker process as the pool sees it; implements ``LinkOwner``."""

    def __init__(self, number: int, name: str, owner: WorkerOwner, load: dict[str, object], arena_bytes: int) -> None:
        # Lifetime of the worker
        self.number = number
        self.name = name
        self.started_at = time.time()
        self.born = time.monotonic()
        self._owner = owner
        self.jobs_ended = owner.jobs_ended
        self._load = load
        self._arena_bytes = arena_bytes
        self._token = secrets.token_hex(16)
        # What it is now
        self.state = WorkerState.STARTING
        self.link: Link | None = None
        self.ready_at = 0.0
        #: whether it ended before it could load for a reason of ours: that says nothing about its service
        self.was_blameless = False
        self.hello: dict[str, object] = {}
        self.autopsy: Autopsy | None = None
        self._process: Process | None = None
        self._gate: Gate | None = None
        #: set when we end it ourselves: the error that its running jobs get, and what the autopsy says
        self.sentence: ServeError | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self.state} pid={self.pid} in_flight={self.in_flight_count}>"

    @property
    def pid(self) -> int:
        """The process id to show, 0 where there is none: of what runs the service, whoever has started that."""
        told = self.hello.get("pid")
        if isinstance(told, int):
            return told
        return self._process.pid if self._process is not None else 0

    @property
    def pids(self) -> list[int]:
        """The processes that run the service: one, or one a rank."""
        ranks = self.hello.get("ranks")
        return [pid for pid in ranks if isinstance(pid, int)] if isinstance(ranks, list) else [self.pid]

    @property
    def in_flight_count(self) -> int:
        """Batches in the worker's hands."""
        return len(self.link.in_flight) if self.link is not None else 0

    @property
    def is_loading(self) -> bool:
        """Whether the worker is on its way to ready."""
        return self.state in (WorkerState.STARTING, WorkerState.LOADING)

    def start(
        self,
        starter: Starter,
        gate: Gate,
        environment: dict[str, str],
        python: str | None,
        program: Program = WORKER,
    ) -> None:
        """Start the process.

        Raises:
            OSError: no process could be started.
        """
        self._gate = gate
        gate.expect(self._token, self._hello)
        launch = Launch(self.name, gate.path, self._token, environment, python, program, self._load)
        try:
            self._process = starter.start(launch, self._exited)
        except OSError:
            gate.forget(self._token)
            raise

    def _hello(self, sock: socket.socket, hello: dict[str, object]) -> None:
        self.hello = hello
        if self._process is not None:
            self._process.include(self.pids)
        if self.state is not WorkerState.STARTING:
            sock.close()
            return
        self.state = check_move(self.state, WorkerState.LOADING)
        try:
            self.link = Link(sock, self.number, self, self._arena_bytes)
        except OSError as error:  # no descriptors or no memory left for the page and the arena
            sock.close()
            self.was_blameless = True
            self.kill(LoadError(f"The link to {self.name} could not be set up: {error}."))
            return
        self.link.load(self._load)

    # LinkOwner

    def link_loaded(self, outcome: dict[str, object]) -> None:
        """See ``LinkOwner``."""
        if self.state is not WorkerState.LOADING:
            return
        if outcome.get("ok"):
            self.state = check_move(self.state, WorkerState.READY)
            self.ready_at = time.monotonic()
            if outcome.get("metrics"):  # what the service has reported while it initialized
                self._owner.worker_metrics(str(outcome["metrics"]).encode())
            if outcome.get("is_async") and self.link is not None:
                self.link.run_concurrently()
            self._owner.worker_ready(self)
            return
        kind = by_kind().get(str(outcome.get("kind")), LoadError)
        error = kind(str(outcome.get("message")), str(outcome.get("hint") or ""))
        if isinstance(error, LoadError):
            error.traceback = str(outcome.get("traceback") or "")
        elif not isinstance(error, OutOfMemory):
            error = LoadError(error.message, error.hint, str(outcome.get("traceback") or ""))
        self._owner.worker_load_failed(self, error)

    def link_answered(self) -> None:
        """See ``LinkOwner``."""
        if self.state is WorkerState.STOPPING:
            self._stop_when_idle()
        else:
            self._owner.worker_answered(self)

    def link_lost(self, error: ServeError) -> None:
        """See ``LinkOwner``. The process has ended, or can be of no use: its exit tells the rest."""
        log.debug("The link to %s is lost: %s", self.name, error)
        if isinstance(error, ProtocolError):  # its exit would tell nothing of this
            self.kill(WorkerDied(f"The worker broke the rules of the wire: {error.message}"))
        elif self._process is not None:
            patience = LAST_SECONDS if self.state is WorkerState.STOPPING else 1.0
            asyncio.get_running_loop().call_later(patience, self._process.kill, True)

    def link_metrics(self, metrics: bytes) -> None:
        """See ``LinkOwner``."""
        self._owner.worker_metrics(metrics)

    # Ending

    def stop(self) -> list[Job]:
        """Let the worker finish the batch that it runs, then end; return the jobs that it had not started."""
        if self.state in (WorkerState.STOPPING, WorkerState.GONE, WorkerState.DIED):
            return []
        was_ready = self.state is WorkerState.READY
        self.state = check_move(self.state, WorkerState.STOPPING)
        if not was_ready or self.link is None:
            self.kill(None)
            return []
        back = self.link.take_back()
        self._stop_when_idle()
        return back

    def _stop_when_idle(self) -> None:
        if self.link is not None and not self.link.in_flight:
            self.link.stop()
            # A service that does not let go (threads, an exit handler that hangs) is ended.
            asyncio.get_running_loop().call_later(LAST_SECONDS, self.kill, None)

    def kill(self, sentence: ServeError | None) -> None:
        """End the process now; ``sentence`` is the error for the jobs that it runs."""
        if self._process is not None and self.state not in (WorkerState.GONE, WorkerState.DIED):
            self.sentence = self.sentence or sentence
            self._process.kill(True)

    def _exited(self, process: Process, how: Exit) -> None:
        if self._gate is not None:
            self._gate.forget(self._token)
        suspects: list[Job] = []
        innocents: list[Job] = []
        step = ""
        if self.link is not None:
            step = self.link.running_step
            suspects, innocents = self.link.lose()
            self.link.close()
        wanted = self.state is WorkerState.STOPPING and not suspects
        ids = tuple(job.id for job in suspects)
        self.autopsy = Autopsy(self._reason(how, step if suspects else ""), how, ids, tuple(process.lines))
        self.state = check_move(self.state, WorkerState.GONE if wanted else WorkerState.DIED)
        self._owner.worker_ended(self, suspects, innocents)
        # Worker and link hold each other: the page and the arena would stay until the garbage collector comes by.
        self.link = None

    def _reason(self, how: Exit, step: str) -> str:
        if self.sentence is not None:
            return f"Worker {self.name} was ended: {self.sentence.message}"
        where = f" in {step}" if step else (" while it loaded the service" if not self.ready_at else "")
        return f"Worker {self.name} {how}{where}."
