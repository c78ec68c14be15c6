"""What would break by a fork is found after a service has loaded, and named."""

from __future__ import annotations

import os
import threading
import types

import pytest

from marserve.worker import fitness
from marserve.worker.fitness import descriptors, why_unfit
from marserve.worker.loader import Entry


async def awaited(data, context):
    """Answer nothing."""


def entry(handle=len, service=None):
    return Entry(handle, "a service", service)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """The process of the tests may have what it wants; a test puts back what it is about."""
    monkeypatch.setattr(fitness, "_threads", list)
    monkeypatch.setattr(fitness, "_has_children", lambda: False)
    monkeypatch.setattr(fitness, "_has_sessions", lambda: False)


def test_a_service_that_only_computes_is_fit():
    assert why_unfit(entry(), set(descriptors())) == ""


def test_a_coroutine_function_is_not():
    assert "async def" in why_unfit(entry(awaited), set(descriptors()))


def test_threads_are_found_by_name(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(fitness, "PATIENCE", 0.0)
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="loader of weights")
    thread.start()

    told = why_unfit(entry(), set(descriptors()))

    end.set()
    thread.join()
    assert "it has started threads" in told
    assert "loader of weights" in told


def test_children_are_found(monkeypatch):
    monkeypatch.setattr(fitness, "_has_children", lambda: True)
    assert "started processes" in why_unfit(entry(), set(descriptors()))


def test_a_gpu_is_found_and_told_before_the_threads_that_come_with_it(monkeypatch):
    monkeypatch.setattr(fitness, "_threads", lambda: ["cuda-EvtHandlr"])
    monkeypatch.setattr(fitness, "descriptors", lambda: {7: "/dev/null", 8: "/dev/nvidia0"})
    assert why_unfit(entry(), {7}) == "it has initialised a GPU"


@pytest.mark.parametrize(
    ("flags", "is_fit"),
    [("r", True), ("a", True), ("w", False), ("r+", False)],
    ids=["read", "append", "write", "both"],
)
def test_a_file_may_be_read_or_appended_to(tmp_path, flags, is_fit):
    path = tmp_path / "weights.bin"
    path.touch()
    known = set(descriptors())
    with open(path, flags):
        assert (why_unfit(entry(), known) == "") == is_fit
        assert is_fit or str(path) in why_unfit(entry(), known)


def test_a_pipe_would_be_shared():
    known = set(descriptors())
    reading, writing = os.pipe()
    told = why_unfit(entry(), known)
    os.close(reading)
    os.close(writing)
    assert "it has opened pipe:" in told


def test_a_session_of_onnxruntime_needs_somebody_to_make_it_anew(monkeypatch):
    monkeypatch.setattr(fitness, "_has_sessions", lambda: True)
    assert "onnxruntime session" in why_unfit(entry(), set(descriptors()))
    able = types.SimpleNamespace(after_fork=lambda context: None)
    assert why_unfit(entry(service=able), set(descriptors())) == ""


def test_sessions_are_found_though_the_collector_has_forgotten_them(monkeypatch):
    monkeypatch.undo()

    class InferenceSession:
        """Stands for onnxruntime's."""

    monkeypatch.setitem(fitness.sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=InferenceSession))
    assert not fitness._has_sessions()
    kept = InferenceSession()
    fitness.gc.freeze()
    found = fitness._has_sessions()
    fitness.gc.unfreeze()
    assert (found, kept is not None) == (True, True)
