"""Stacks to hot functions, and what is read of the machine and of a process."""

from bench.machine import processor_name
from bench.memory import maps_torch
from bench.profile import Hot, hottest

STACKS = """\
main (run.py:3);serve (loop.py:10);encode (frames.py:20) 30
main (run.py:3);serve (loop.py:12);encode (frames.py:25) 30
main (run.py:3);serve (loop.py:12) 20
main (run.py:4);walk (tree.py:1);walk (tree.py:2);<lambda> (a b.py:7) 20
"""


def test_lines_of_a_function_add_up():
    assert hottest(STACKS, 1) == [Hot("encode (frames.py)", 0.6, 0.6)]


def test_function_counts_in_full_where_it_called_others():
    found = {hot.function: hot for hot in hottest(STACKS, 10)}
    assert found["serve (loop.py)"] == Hot("serve (loop.py)", 0.2, 0.8)
    assert found["<lambda> (a b.py)"].own == 0.2


def test_function_that_calls_itself_counts_once_a_stack():
    stacks = "walk (tree.py:1);walk (tree.py:2) 10\nmain (run.py:1) 10\n"
    assert hottest(stacks, 5) == [Hot("walk (tree.py)", 0.5, 0.5), Hot("main (run.py)", 0.5, 0.5)]


def test_frame_without_a_line_keeps_its_name():
    assert hottest("main (run.py:1);[idle] 4\n", 1) == [Hot("[idle]", 1.0, 1.0)]


def test_nothing_is_hot_without_samples():
    assert hottest("", 5) == []


def test_torch_is_seen_by_its_libraries_alone():
    own = "7f00-7f01 r-xp 0 08:01 1 /venv/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so\n"
    others = "7f00-7f01 r-xp 0 08:01 1 /venv/lib/python3.11/site-packages/numpy/core/_multiarray.so\n"
    assert maps_torch(others + own)
    assert not maps_torch(others + "7f02-7f03 rw-p 0 08:01 1 /store/fizbuz_torch.mar\n")


def test_processor_is_the_first_that_has_a_name():
    text = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz: fast\nprocessor\t: 1\nmodel name\t: Other\n"
    assert processor_name(text) == "Some CPU @ 2.0GHz: fast"
    assert processor_name("processor : 0\nBogoMIPS : 50\n") == ""
