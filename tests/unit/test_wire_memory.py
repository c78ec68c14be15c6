"""The allocator's settings: taken where there is glibc, and no error where there is not."""

import ctypes
import platform
import sys

import pytest

from marserve.wire.memory import keep_freed_memory


@pytest.mark.parametrize("is_glibc", [platform.libc_ver()[0] == "glibc"])
def test_glibc_takes_the_settings(is_glibc: bool) -> None:
    assert keep_freed_memory() is is_glibc


def test_another_library_does_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
