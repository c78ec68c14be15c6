"""The Starter that forks workers from their parent: a process of the model version that has loaded its service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from marserve.supervisor.changes import Changes
from marserve.supervisor.gate import Gate
from marserve.supervisor.parallel import Parallel
from marserve.supervisor.parent import PARENT, Ordered, Parent
from marserve.supervisor.process import Exit, Launch, OnExit, Process, Starter
from marserve.wire import frames

log = logging.getLogger("marserve.pool")

#: Until the next try where the system has no process, descriptor or memory left, seconds. A worker that waits for
#: that is ended by its startup timeout.
PAUSE = 0.5


class Spawning(Starter, Protocol):
    """The other Starter, which also takes care of processes that others have forked."""

    def adopt(self, name: str, pid: int, output: int, on_exit: OnExit) -> Process:
        """Watch a child of this process; see ``supervisor.spawning.Spawner``."""


class Forker:
    """Forks the workers of one version; where a service is not fit for it, starts them by the other Starter.

    A parent that ends takes no worker with it: those go on, and the next one that is wanted gets a new parent.
    While it loads, its end is that of the worker that has waited longest; the others get another parent.

    Args:
        name: of the version, for the log.
    """

    def __init__(self, name: str, spawner: Spawning, gate: Gate) -> None:
        self._name = name
        self._spawner = spawner
        self._gate = gate
        #: whether workers are spawned after all
        self._is_unfit = False
        self._parent: Parent | None = None
        #: parents that are on their way out
        self._leaving: set[Parent] = set()
        #: those that no parent has been asked for, in the order in which they are wanted
        self._waiting: deque[Ordered] = deque()
        self._changes = Changes()

    def start(self, launch: Launch, on_exit: OnExit) -> Process:
        """See ``Starter``."""
        if self._is_unfit:
            return self._spawner.start(launch, on_exit)
        ordered = Ordered(launch, on_exit, self._abandon)
        with contextlib.suppress(ConnectionError):  # as in _go_on
            if not self._waiting and self._advance(ordered):
                return ordered
        self._waiting.append(ordered)
        return ordered

    def release(self) -> None:
        """See ``Starter``."""
        parent = self._parent
        if parent is not None and not self._waiting:
            self._parent = None
            self._leaving.add(parent)
            parent.release()

    async def close(self) -> None:
        """See ``Starter``."""
        self.release()
        await self._changes.wait_until(lambda: not self._leaving)

    def _begin(self, launch: Launch) -> None:
        """Start a parent, which loads what a worker was to load."""
        told = replace(launch, name=f"{self._name}#parent", token=secrets.token_hex(16), program=PARENT)
        parent = Parent(told, self._gate, self._heard)
        try:
            parent.process = self._spawner.start(told, partial(self._parent_ended, parent))
        except OSError:
            parent.close()
            raise
        self._parent = parent

    def _go_on(self) -> None:
        """Bring those that wait further, now or, where the system is short of something, in a while."""
        try:
            while self._waiting and self._advance(self._waiting[0]):
                self._waiting.popleft()
        except ConnectionError:
            return  # the parent is ending: when it has, another one is started
        except OSError as error:
            log.error("No worker process for %s could be started: %s. It is tried again.", self._name, error)
            asyncio.get_running_loop().call_later(PAUSE, self._go_on)

    def _advance(self, ordered: Ordered) -> bool:
        """Do what can be done for a worker that waits; return whether it waits no longer."""
        if self._is_unfit:
            ordered.become(self._spawner.start(ordered.launch, ordered.ended))
            return True
        if self._parent is None:
            self._begin(ordered.launch)
            return False
        if not self._parent.is_ready:
            return False
        self._parent.fork(ordered)
        return True

    def _abandon(self, ordered: Ordered) -> None:
        """A worker is to end before it was there; one that is being forked ends as soon as it is."""
        if ordered not in self._waiting:
            return
        self._waiting.remove(ordered)
        if self._parent is not None and not self._parent.is_ready:
            ordered.saw(self._parent.process)
            self.release()  # unless somebody else waits for what it loads
        asyncio.get_running_loop().call_soon(ordered.given_up)

    def _heard(self, parent: Parent, kind: int, message: dict[str, object]) -> None:
        if kind == frames.FORKED:
            self._forked(parent, message)
        elif parent is self._parent:
            self._loaded(parent, message)

    def _loaded(self, parent: Parent, message: dict[str, object]) -> None:
        why = str(message.get("unfit") or "")
        if message.get("ok") and not why:
            parent.is_ready = True
            log.info("%s: its workers are forked from process %d.", self._name, parent.process.pid)
        else:  # it becomes a worker: to serve all the same, or to tell why it cannot
            if why:
                self._is_unfit = True
                log.info("%s", spawned(self._name, why))
            self._parent = None
            parent.serve(self._waiting.popleft())
        self._go_on()

    def _forked(self, parent: Parent, message: dict[str, object]) -> None:
        ordered = parent.asked.pop(str(message.get("token")))
        pid = message.get("pid")
        if isinstance(pid, int):
            ordered.become(self._spawner.adopt(ordered.name, pid, ordered.output, ordered.ended))
            return
        os.close(ordered.output)
        log.error("No worker of %s could be forked: %s. It is tried again.", self._name, message.get("error"))
        self._take_back(ordered)
        asyncio.get_running_loop().call_later(PAUSE, self._go_on)

    def _take_back(self, ordered: Ordered) -> None:
        """A worker has not been forked."""
        if ordered.is_unwanted:
            ordered.given_up()
        else:
            self._waiting.appendleft(ordered)

    def _parent_ended(self, parent: Parent, process: Process, how: Exit) -> None:
        parent.close()
        if parent.heir is not None:
            parent.heir.ended(process, how)
            return
        self._leaving.discard(parent)
        for ordered in parent.asked.values():
            os.close(ordered.output)
            self._take_back(ordered)
        if parent is self._parent:
            self._parent = None
            if not parent.is_ready:
                self._waiting.popleft().ended(process, how)
            else:
                log.warning(
                    "%s: the parent of its workers %s. They go on; for the next one the service is loaded again.",
                    self._name,
                    how,
                )
        self._go_on()
        self._changes.tell()


def spawned(name: str, why: str) -> str:
    """Return the line that says that workers of a version are not forked."""
    return f"{name}: its workers are spawned, each with a copy of the model of its own: {why}."


def why_not_forked(parallel: Parallel, python: str, gpu_ids: Sequence[int], is_pinned: bool) -> str:
    """Return why the workers of a version cannot be forked, before anything is loaded; "" if they may be.

    Args:
        python: their interpreter, "" for the server's own.
        is_pinned: whether each is to have cores of its own.
    """
    reasons = (
        (sys.platform != "linux", "this system has no fork that libraries survive"),
        (parallel.level > 0, "each is several processes, or has several devices"),
        (bool(gpu_ids), "a GPU cannot be used by a process that was forked after its first use"),
        (bool(python), "they have an interpreter of their own"),
        (is_pinned, "each is pinned to cores when it starts"),
    )
    return next((why for is_so, why in reasons if is_so), "")
