"""Packs the archives that are measured into one store, and unpacks them for those who call them in-process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marserve.archive.packing import Recipe, collect
from marserve.archive.reader import files_below, unpack
from marserve.archive.writer import write_archive

ROOT = Path(__file__).resolve().parents[2]
#: The worked archive that holds the network of two layers, 10 to 100 to 4, as ONNX.
FIZBUZ = ROOT / "model-store" / "fizbuz_package.mar"
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Subject:
    """A service under measurement.

    Attributes:
        name: of the model, and of its archive in the store.
        examples: JSON bodies and the JSON that answers them; the first body is the load.
    """

    name: str
    examples: tuple[tuple[str, object], ...]

    @property
    def path(self) -> str:
        """Where every server and floor answers for it."""
        return f"/predictions/{self.name}"

    @property
    def body(self) -> str:
        """The request that is sent over and over."""
        return self.examples[0][0]


TWO_LAYERS = Subject(
    "two_layers",
    tuple(
        (f'{{"input.1": {number}}}', {"next_number": word})
        for number, word in ((14, "FizBuz"), (1, "2"), (2, "Fiz"), (4, "Buz"))
    ),
)
SLOW = Subject("slow", (('{"number": 7}', {"number": 7}), ('{"number": 8}', {"number": 8})))


@dataclass(frozen=True)
class Built:
    """Where the archives are: ``store`` for servers, ``folders`` (one a name, unpacked) for floors."""

    store: Path
    folders: Path


@contextmanager
def built_services() -> Iterator[Built]:
    """Make both archives anew, which takes about a tenth of a second, and remove them when the block ends.

    Raises:
        ServeError, CalledProcessError: see ``build``.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield build(Path(folder))


def build(target: Path) -> Built:
    """Make both archives in ``target``, an empty folder.

    Raises:
        ServeError: the worked archive, or one of ours, cannot be read or packed.
        CalledProcessError: the worked archive is not there and cannot be built.
    """
    built = Built(target / "store", target / "unpacked")
    built.store.mkdir(parents=True)
    if not FIZBUZ.is_file():
        script = ROOT / "scripts" / "build_archives.py"
        subprocess.run([sys.executable, str(script), "--only", "fizbuz_package"], cwd=ROOT, check=True)
    plain = target / "plain"
    plain.mkdir()
    config = unpack(FIZBUZ, plain, MOST_BYTES).config_file or "model-config.yaml"
    # What it says of batches and workers would win over the settings that tell the measured servers apart.
    (plain / config).write_text("deviceType: cpu\n")
    write_archive(dict(files_below(plain)), built.store / f"{TWO_LAYERS.name}.mar", "default")
    sleep = Recipe(SLOW.name, "1.0", handler=str(Path(__file__).with_name("sleep_service.py")))
    write_archive(collect(sleep).entries, built.store / f"{SLOW.name}.mar", "default")
    for subject in (TWO_LAYERS, SLOW):
        folder = built.folders / subject.name
        folder.mkdir(parents=True)
        unpack(built.store / f"{subject.name}.mar", folder, MOST_BYTES)
    return built
