"""What a worker makes its own that was forked from a process with a loaded service, and how it ends."""

from __future__ import annotations

import atexit
import os
import random
import sys
import threading
import time
import traceback
import weakref
from typing import Any, Callable, Dict, Mapping, NoReturn

from marserve.errors import OutOfMemory, ServeError
from marserve.worker.fitness import descriptors, is_read_only_file
from marserve.worker.loader import tell_forked
from marserve.worker.loop import LoadOutcome, failed
from marserve.worker.main import follow_parent
from marserve.worker.threads import Said, set_threads


def make_own(output: int, server: int) -> None:
    """Make this process a worker like others: its own output, files, random numbers and end.

    Args:
        output: descriptor of the pipe that the server reads its log from.
        server: process id of the server, which ends this process by its own end.
    """
    follow_parent(server)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    _reopen_files()
    _forget_exits()
    _reseed()


def _reopen_files() -> None:
    """Open files that are read once more: the place in a file is shared by all that have been forked."""
    for number in descriptors():
        if number > 2 and is_read_only_file(number):
            place = os.lseek(number, 0, os.SEEK_CUR)
            again = os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
            os.lseek(again, place, os.SEEK_SET)
            os.dup2(again, number, os.get_inheritable(number))
            os.close(again)


def _forget_exits() -> None:
    """Leave what is to be done at the end to the parent: the first worker to go would take a shared folder along."""
    atexit._clear()
    finalize: Any = weakref.finalize
    finalize._registry.clear()
    finalize._registered_with_atexit = False


def _reseed() -> None:
    """Begin random numbers anew, which would else be the same in all workers."""
    random.seed()
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.seed()


def take_over(outcome: LoadOutcome, said: Said, told: Mapping[str, object], words: memoryview) -> LoadOutcome:
    """Return a service that has been loaded already as that of one worker.

    Args:
        outcome: of the load.
        said: what the environment says of threads, see ``worker.threads``.
        told, words: as for ``worker.loop.load``.
    """
    runner = outcome.runner
    if runner is None:
        return outcome
    began = time.perf_counter()
    threads = int(str(told["thread_count"]))
    runner.context.thread_count = threads
    runner.context.will_fork = False
    runner.steps.show_on(words)
    try:
        set_threads(threads, said)
        tell_forked(runner.entry, runner.context)
    except ServeError as error:
        return failed(error)
    except MemoryError:
        return failed(OutOfMemory("The service ran out of memory after it was forked."))
    message: Dict[str, object] = {**outcome.message, "seconds": time.perf_counter() - began}
    return LoadOutcome(message, runner)


def end(work: Callable[[], int]) -> NoReturn:
    """Run a forked worker to its end.

    Python's own way out is not taken: it would write to every object, and so copy what is shared, and compiled code
    would wait for threads that only the parent has had.
    """
    code = 1
    try:
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    try:
        shutdown: Any = threading
        shutdown._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
