"""What a forked worker makes its own: its page, threads, files and random numbers."""

from __future__ import annotations

import os
import sys
import types

import pytest

from marserve.service.context import Context
from marserve.wire import page
from marserve.worker import forked, threads
from marserve.worker.forked import take_over
from marserve.worker.loader import Entry
from marserve.worker.loop import LoadOutcome, Runner, Steps
from marserve.worker.threads import VARIABLES, hold_to_one, set_threads

SAID = dict.fromkeys(VARIABLES)


def words():
    return memoryview(bytearray(page.PAGE_SIZE)).cast("Q")


def loaded(service):
    """Return the outcome of a load in a parent, and its context."""
    context = Context("m", "/m", {}, thread_count=4)
    context.will_fork = True
    runner = Runner(Entry(len, "class M of m", service), context, Steps(words()), "native", True, "", 100)
    return LoadOutcome({"ok": True, "seconds": 9.0, "is_async": False}, runner), context


@pytest.fixture
def no_libraries(monkeypatch):
    """Leave the libraries of the tests' own process as they are, and its environment."""
    monkeypatch.setattr(threads, "_libraries", dict)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for name in VARIABLES:
        monkeypatch.setenv(name, "")


def test_a_loaded_service_becomes_that_of_one_worker(no_libraries):
    calls = []
    service = types.SimpleNamespace(
        after_fork=lambda context: calls.append((context.thread_count, context.will_fork))
    )
    outcome, context = loaded(service)
    own = words()

    found = take_over(outcome, SAID, {"thread_count": 2}, own)

    assert calls == [(2, False)]
    assert found.runner.context is context
    assert found.message["ok"]
    found.runner.steps.enter(2)
    assert own[page.STEP] == 3, "its steps are on its own page"


def test_what_after_fork_raises_is_told_like_a_load_that_fails(no_libraries):
    outcome, _ = loaded(types.SimpleNamespace(after_fork=lambda context: 1 / 0))

    found = take_over(outcome, SAID, {"thread_count": 1}, words())

    assert found.runner is None
    assert "class M of m cannot be loaded: ZeroDivisionError" in found.message["message"]


def test_a_load_that_has_failed_is_told_as_it_is():
    outcome = LoadOutcome({"ok": False}, None)
    assert take_over(outcome, SAID, {"thread_count": 1}, words()) is outcome


def test_files_are_read_from_their_place_on_but_each_by_itself(tmp_path, monkeypatch):
    path = tmp_path / "words"
    path.write_bytes(b"abcdef")
    number = os.open(path, os.O_RDONLY)
    os.read(number, 2)
    other = os.dup(number)  # as in a forked process
    monkeypatch.setattr(forked, "descriptors", lambda: {number: str(path)})

    forked._reopen_files()

    assert os.read(number, 2) == b"cd"
    assert os.read(other, 4) == b"cdef"
    os.close(number)
    os.close(other)


def test_random_numbers_begin_anew(monkeypatch):
    calls = []
    fake = types.SimpleNamespace(seed=lambda: calls.append("seed"))
    monkeypatch.setitem(sys.modules, "numpy.random", fake)
    monkeypatch.setitem(sys.modules, "torch", fake)
    state = forked.random.getstate()

    forked._reseed()

    assert calls == ["seed", "seed"]
    assert forked.random.getstate() != state


def test_libraries_are_held_to_one_thread_and_let_go_again(no_libraries, monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "3,1")
    said = hold_to_one()
    assert [os.environ[name] for name in VARIABLES] == ["1", "1", "1"]
    calls = []
    monkeypatch.setattr(
        threads,
        "_libraries",
        lambda: dict.fromkeys(
            ["/x/libgomp.so.1", "/x/libscipy_openblas64_-1.so", "/x/libmkl_rt.so.2", "/x/libgo.so"]
        ),
    )
    monkeypatch.setattr(threads, "_call", lambda path, names, number: calls.append((path, number)))
    torch = types.SimpleNamespace(
        get_num_threads=lambda: 1, set_num_threads=lambda count: calls.append(("torch", count))
    )
    monkeypatch.setitem(sys.modules, "torch", torch)

    set_threads(2, said)

    assert [os.environ[name] for name in VARIABLES] == ["2", "2", "3,1"]
    assert calls == [
        ("/x/libgomp.so.1", 2),
        ("/x/libscipy_openblas64_-1.so", 2),
        ("/x/libmkl_rt.so.2", 3),
        ("torch", 2),
    ]


def test_threads_of_torch_that_the_service_has_chosen_stay(no_libraries, monkeypatch):
    calls = []
    torch = types.SimpleNamespace(get_num_threads=lambda: 6, set_num_threads=calls.append)
    monkeypatch.setitem(sys.modules, "torch", torch)

    set_threads(2, SAID)

    assert calls == [6]
