"""What a server is fitted with that no other test of a room holds: its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from marserve.fittings import runtime_folder


@pytest.mark.parametrize(
    ("dialect", "temp", "expected"),
    [
        ("torchserve", "temp", "temp"),
        ("mms", "temp", "temp"),
        ("native", "temp", "tmpdir"),
        ("torchserve", "nowhere", "tmpdir"),
        ("torchserve", "", "tmpdir"),
    ],
)
def test_the_old_dialects_unpack_below_temp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str, temp: str, expected: str
) -> None:
    for name in ("temp", "tmpdir"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmpdir"))
    monkeypatch.setenv("TEMP", temp)
    monkeypatch.setattr("marserve.fittings.LONGEST_SOCKET_PATH", 4096)

    folder = runtime_folder(dialect)

    assert folder.parent == tmp_path / expected
    assert folder.is_absolute()
