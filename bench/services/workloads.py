"""What peers are asked: archives whose services import no server's code, each with requests and right answers."""

from __future__ import annotations

import io
import json
import math
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.services.build import FIZBUZ, MOST_BYTES, ROOT, Built
from marserve.archive.packing import Recipe, collect
from marserve.archive.reader import unpack
from marserve.archive.writer import write_archive

JSON, BYTES, PNG = "application/json", "application/octet-stream", "image/png"
DIGITS = ROOT / "model-store" / "digits.mar"
#: How far numbers of an answer may lie from the expected ones: a batch is added up in another order.
CLOSE = 1e-3


@dataclass(frozen=True)
class Workload:
    """A request that is sent over and over to one archive.

    Attributes:
        key: its name in results.
        archive: the model's name; several workloads may share one.
        title: its name in tables.
        content_type: of the body.
        body: makes the request.
        expected: what answers it: JSON, or None where the service in this process has to say, or the body itself.
        echoes: whether the answer is the body.
    """

    key: str
    archive: str
    title: str
    content_type: str
    body: Callable[[], bytes]
    expected: object = None
    echoes: bool = False

    def is_right(self, answer: object) -> bool:
        """Tell whether an answer, parsed if it is JSON, is the expected one."""
        return answer == self.body() if self.echoes else self.expected is None or is_close(answer, self.expected)


def is_close(found: object, expected: object) -> bool:
    """Tell whether two JSON values are alike, numbers up to ``CLOSE``."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(is_close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(is_close, found, expected))
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=CLOSE)
    return found == expected


def _json(value: object) -> Callable[[], bytes]:
    return json.dumps(value).encode


def _echo(key: str, size: int, title: str) -> Workload:
    # Seeded: random bytes that no link compresses, the same for everybody.
    return Workload(key, "echo", title, BYTES, lambda: random.Random(size).randbytes(size), echoes=True)


def picture() -> bytes:
    """Return a PNG of 128 by 128 points: a one, drawn by hand, dark on white."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (128, 128), "white")
    ImageDraw.Draw(image).line([(44, 36), (70, 8), (70, 120)], fill="black", width=22)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


_TEXT = " ".join(f"word{number}" for number in range(32))
_NUMBER = {"number": 7}

WORKLOADS = {
    workload.key: workload
    for workload in (
        Workload(
            "two_layers",
            "two_layers",
            "two layers, JSON",
            JSON,
            _json({"input.1": 14}),
            {"next_number": "FizBuz"},
        ),
        Workload("digits", "digits", "digits, PNG upload", PNG, picture),
        _echo("echo_1k", 1_000, "noop, 1 KB in and out"),
        _echo("echo_100k", 100_000, "noop, 100 KB in and out"),
        _echo("echo_1m", 1_000_000, "noop, 1 MB in and out"),
        _echo("echo_10m", 10_000_000, "noop, 10 MB in and out"),
        Workload("sleep_5", "sleep_5", "sleep of 5 ms", JSON, _json(_NUMBER), _NUMBER),
        Workload("sleep_50", "sleep_50", "sleep of 50 ms", JSON, _json(_NUMBER), _NUMBER),
        Workload("encoder", "encoder", "text encoder, 20 M parameters", JSON, _json({"text": _TEXT})),
        Workload("heavy", "heavy", "model of 400 MB", JSON, _json(_NUMBER), _NUMBER),
    )
}


def _entry_of(archive: Path, name: str, folder: Path) -> str:
    """Take one file out of a worked archive, which is built if it is not there; return where it lies now."""
    if not archive.is_file():
        script = ROOT / "scripts" / "build_archives.py"
        subprocess.run([sys.executable, str(script), "--only", archive.stem], cwd=ROOT, check=True)
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive) as opened:
        return opened.extract(name, folder)


def _two_layers(folder: Path) -> list[str]:
    return [_entry_of(FIZBUZ, "fizbuz.onnx", folder)]


def _digits(folder: Path) -> list[str]:
    return [_entry_of(DIGITS, name, folder) for name in ("network.py", "digits.safetensors")]


def _nothing(folder: Path) -> list[str]:
    return []


def _seconds(value: float) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        folder.mkdir(exist_ok=True)
        (folder / "seconds").write_text(str(value))
        return [str(folder / "seconds")]

    return write


def _encoder(folder: Path) -> list[str]:
    import torch

    from bench.services.encoder_service import made_encoder

    folder.mkdir(exist_ok=True)
    torch.save(made_encoder().state_dict(), folder / "encoder.pt")
    return [str(folder / "encoder.pt")]


#: Of each archive its service, and what makes the files beside it.
ARCHIVES: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "two_layers": ("two_layers_service.py", _two_layers),
    "digits": ("picture_service.py", _digits),
    "echo": ("echo_service.py", _nothing),
    "sleep_5": ("pause_service.py", _seconds(0.005)),
    "sleep_50": ("pause_service.py", _seconds(0.05)),
    "encoder": ("encoder_service.py", _encoder),
    "heavy": ("heavy_service.py", _nothing),
}


@contextmanager
def built_workloads(archives: Sequence[str]) -> Iterator[Built]:
    """Make the named archives anew, and remove them when the block ends; the encoder takes about two seconds.

    Raises:
        ServeError: one cannot be packed.
        CalledProcessError: a worked archive is not there and cannot be built.
    """
    with TemporaryDirectory(prefix="bench-") as folder:
        built = Built(Path(folder, "store"), Path(folder, "unpacked"))
        built.store.mkdir()
        for name in archives:
            service, files_beside = ARCHIVES[name]
            handler = Path(__file__).with_name(service)
            recipe = Recipe(name, "1.0", handler=str(handler), extra_files=files_beside(Path(folder, name)))
            # Stored, so that no server's time to the first answer is spent on another's compression.
            write_archive(collect(recipe).entries, built.store / f"{name}.mar", "zip-store")
            (built.folders / name).mkdir(parents=True)
            unpack(built.store / f"{name}.mar", built.folders / name, MOST_BYTES)
        yield built
