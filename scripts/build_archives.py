"""Trains what has to be trained and packs every worked archive into the model store; done work is not repeated."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Sources of the packing commands: when they change, an archive may get other bytes.
ARCHIVER_SOURCES = "src/marserve/archive"


@dataclass(frozen=True)
class Recipe:
    """How one archive is made: weights by a script, then the archive from a folder of named files.

    Attributes:
        script: writes the weights into the folder that ``--output`` names.
        weights: the file that it writes.
        beside: what else it writes that goes into the archive.
        packages: distributions whose version changes the weights.
        files: what goes in beside the weights: name in the archive, and where it comes from.
        command: the packing command as a user types it beside the archive's folder; where to and ``-f`` follow.
        sources: what the script reads beside its own file.
        starts_from: archive whose weights the script gets as ``--weights``.
        is_long: its training is too long for tests and the quick start; its script has ``--brief``: a few seconds.
    """

    name: str
    script: str
    weights: str
    packages: tuple[str, ...]
    files: dict[str, str]
    command: str
    sources: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    starts_from: str = ""
    is_long: bool = False


NUMBERS = {"fizbuz_numbers.py": "handlers/fizbuz_numbers.py"}
FIZBUZ_TORCH_SERVICE = {"fizbuz_torch_service.py": "handlers/fizbuz_torch_service.py"}
FIZBUZ_NETWORK = {"network.py": "archives/fizbuz_torch/network.py"}
MXNET_REQUIREMENTS = {"requirements.txt": "archives/fizbuz_mxnet/requirements.txt"}
DIGITS_NETWORK = {"network.py": "archives/digits/network.py"}
DIGITS_CLASSIFIER = {"digits_classifier.py": "archives/digits_torchserve/digits_classifier.py"}
DETECTOR_NETWORK = {
    name: f"archives/shapes_detector/{name}" for name in ("network.py", "detection.py", "shapes.cfg", "shapes.names")
}
SEGMENTER_NETWORK = {"network.py": "archives/shapes_segmenter/network.py"}
SCENE_MATCH = {
    "network.py": "archives/scene_match/network.py",
    "scene_match_words.py": "handlers/scene_match_words.py",
}
DOCSTRING_WORDS = {"docstring_words.py": "handlers/docstring_words.py"}
#: Writes TorchScript for the archives that hold it.
TORCHSCRIPT = "archives/torchscript.py"


def about(name: str) -> dict[str, str]:
    """Return the files that say what an archive takes and how it is run."""
    return {"signature.json": f"signature/{name}.json", "model-config.yaml": f"archives/{name}/model-config.yaml"}


#: In building order: who starts from another's weights comes after it.
RECIPES = (
    Recipe(
        name="fizbuz_torch",
        script="archives/fizbuz_torch/train.py",
        sources=(*FIZBUZ_NETWORK.values(), *NUMBERS.values()),
        weights="fizbuz.pt",
        packages=("torch", "numpy"),
        files=FIZBUZ_NETWORK | FIZBUZ_TORCH_SERVICE | NUMBERS | about("fizbuz_torch"),
        command="torch-model-archiver --model-name fizbuz_torch --version 1.0 --model-file fizbuz_torch/network.py"
        " --serialized-file fizbuz_torch/fizbuz.pt --handler fizbuz_torch/fizbuz_torch_service.py"
        " --extra-files fizbuz_torch/fizbuz_numbers.py,fizbuz_torch/signature.json"
        " --config-file fizbuz_torch/model-config.yaml --export-path",
    ),
    Recipe(
        name="fizbuz_package",
        script="archives/fizbuz_package/export.py",
        weights="fizbuz.onnx",
        packages=("onnx", "torch"),
        files={"fizbuz_service.py": "handlers/fizbuz_service.py"} | NUMBERS | about("fizbuz_package"),
        command="model-archiver --model-name fizbuz_package --model-path fizbuz_package --handler fizbuz_service"
        " --export-path",
        starts_from="fizbuz_torch",
    ),
    Recipe(
        name="fizbuz_script",
        script="archives/fizbuz_script/export.py",
        sources=(*FIZBUZ_NETWORK.values(), TORCHSCRIPT),
        weights="fizbuz_script.pt",
        packages=("torch",),
        files=FIZBUZ_TORCH_SERVICE | NUMBERS | about("fizbuz_script"),
        command="torch-model-archiver --model-name fizbuz_script --version 1.0"
        " --serialized-file fizbuz_script/fizbuz_script.pt --handler fizbuz_script/fizbuz_torch_service.py"
        " --extra-files fizbuz_script/fizbuz_numbers.py,fizbuz_script/signature.json"
        " --config-file fizbuz_script/model-config.yaml --export-path",
        starts_from="fizbuz_torch",
    ),
    Recipe(
        name="fizbuz_mxnet",
        script="archives/fizbuz_mxnet/export.py",
        sources=(
            "archives/fizbuz_mxnet/network.py",
            "archives/fizbuz_mxnet/model-config.yaml",
            *MXNET_REQUIREMENTS.values(),
        ),
        weights="fizbuz-0000.params",
        beside=("fizbuz-symbol.json",),
        packages=("torch",),
        files={"fizbuz_mxnet_service.py": "handlers/fizbuz_mxnet_service.py"}
        | NUMBERS
        | MXNET_REQUIREMENTS
        | about("fizbuz_mxnet"),
        command="model-archiver --model-name fizbuz_mxnet --model-path fizbuz_mxnet --handler fizbuz_mxnet_service"
        " --export-path",
        starts_from="fizbuz_torch",
    ),
    Recipe(
        name="digits",
        script="archives/digits/train.py",
        sources=tuple(DIGITS_NETWORK.values()),
        weights="digits.safetensors",
        packages=("torch", "numpy", "scikit-learn", "safetensors"),
        files=DIGITS_NETWORK | {"digits_service.py": "handlers/digits_service.py"} | about("digits"),
        command="marserve archive create digits --export-path",
    ),
    Recipe(
        name="digits_torchserve",
        script="archives/digits_torchserve/export.py",
        sources=("archives/digits/train.py", *DIGITS_NETWORK.values(), *DIGITS_CLASSIFIER.values()),
        weights="digits_torchserve.pt",
        packages=("torch", "numpy", "scikit-learn", "safetensors", "pillow"),
        files=DIGITS_NETWORK
        | DIGITS_CLASSIFIER
        | {"index_to_name.json": "archives/digits_torchserve/index_to_name.json"}
        | about("digits_torchserve"),
        command="torch-model-archiver --model-name digits_torchserve --version 1.0"
        " --model-file digits_torchserve/digits_classifier.py"
        " --serialized-file digits_torchserve/digits_torchserve.pt --handler image_classifier"
        " --extra-files digits_torchserve/index_to_name.json,digits_torchserve/network.py,"
        "digits_torchserve/signature.json --config-file digits_torchserve/model-config.yaml --export-path",
        starts_from="digits",
    ),
    Recipe(
        name="docstring_topics",
        script="archives/docstring_topics/train.py",
        sources=(
            "archives/docstring_topics/docstrings.py",
            "archives/docstring_topics/network.py",
            TORCHSCRIPT,
            *DOCSTRING_WORDS.values(),
        ),
        weights="docstring_topics.pt",
        beside=("docstring_vocabulary.json",),
        packages=("torch",),
        files={"docstring_topics_service.py": "handlers/docstring_topics_service.py"}
        | DOCSTRING_WORDS
        | about("docstring_topics"),
        command="torch-model-archiver --model-name docstring_topics --version 1.0"
        " --serialized-file docstring_topics/docstring_topics.pt"
        " --handler docstring_topics/docstring_topics_service.py"
        " --extra-files docstring_topics/docstring_vocabulary.json,docstring_topics/docstring_words.py,"
        "docstring_topics/signature.json --config-file docstring_topics/model-config.yaml --export-path",
        is_long=True,
    ),
    Recipe(
        name="shapes_detector",
        script="archives/shapes_detector/train.py",
        sources=(
            "archives/shapes_scenes.py",
            "archives/shapes_detector/precision.py",
            *(DETECTOR_NETWORK[name] for name in ("network.py", "detection.py", "shapes.cfg")),
        ),
        weights="shapes.weights",
        packages=("torch", "numpy", "pillow"),
        files=DETECTOR_NETWORK
        | {"shapes_detector_service.py": "handlers/shapes_detector_service.py"}
        | about("shapes_detector"),
        command="marserve archive create shapes_detector --serialized-file shapes.weights --export-path",
        is_long=True,
    ),
    Recipe(
        name="shapes_segmenter",
        script="archives/shapes_segmenter/train.py",
        sources=("archives/shapes_scenes.py", *SEGMENTER_NETWORK.values()),
        weights="shapes_segmenter.safetensors",
        packages=("torch", "numpy", "pillow", "safetensors"),
        files=SEGMENTER_NETWORK
        | {"shapes_segmenter_service.py": "handlers/shapes_segmenter_service.py"}
        | about("shapes_segmenter"),
        command="marserve archive create shapes_segmenter --export-path",
        is_long=True,
    ),
    Recipe(
        name="scene_match",
        script="archives/scene_match/train.py",
        sources=("archives/shapes_scenes.py", "archives/scene_match/sentences.py", *SCENE_MATCH.values()),
        weights="scene_match.safetensors",
        packages=("torch", "numpy", "pillow", "safetensors"),
        files=SCENE_MATCH | {"scene_match_service.py": "handlers/scene_match_service.py"} | about("scene_match"),
        command="marserve archive create scene_match --export-path",
        is_long=True,
    ),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}


class Stamps:
    """What each made file was made from, kept from run to run in one JSON file.

    A file is fresh while it, and what it was made from, hash as they did when it was made. A run that was
    cut off leaves no stamp, so half a file is never taken for a whole one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, list[str]] = {}
        # Stamps that are not there, or damaged, only mean that everything is made again.
        with contextlib.suppress(OSError, ValueError):
            self._known = json.loads(path.read_text())

    def is_fresh(self, made: Path, origin: str) -> bool:
        """Tell whether ``made`` is there, unchanged, and from this origin."""
        return made.is_file() and self._known.get(str(made)) == [origin, digest(made)]

    def add(self, made: Path, origin: str) -> None:
        """Remember that ``made`` is from this origin."""
        self._known[str(made)] = [origin, digest(made)]
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(self._known, indent=2))
        draft.replace(self.path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all Python and JSON files of a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.suffix in (".py", ".json"))
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()


def origin_of(files: list[Path], *words: str) -> str:
    """Return one text that changes when a file or a word does."""
    return hashlib.sha256(json.dumps([*map(digest, files), *words]).encode()).hexdigest()


class Builder:
    """Makes archives in a store, and their weights and folders in a work folder."""

    def __init__(self, store: Path, work: Path, is_forced: bool, is_brief: bool) -> None:
        self.store = store.resolve()
        self.work = work.resolve()
        self.is_forced = is_forced
        self.is_brief = is_brief
        for folder in (self.store, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.stamps = Stamps(self.work / "stamps.json")
        #: What this run has made, so that ``is_forced`` makes nothing twice.
        self.made: set[Path] = set()

    def archive(self, recipe: Recipe) -> Path:
        """Return an archive, made now if it is not fresh."""
        weights = self.weights(recipe)
        made = self.store / f"{recipe.name}.mar"
        files = {name: ROOT / source for name, source in recipe.files.items()} | {weights.name: weights}
        files |= {name: weights.with_name(name) for name in recipe.beside}
        origin = origin_of([*files.values(), ROOT / ARCHIVER_SOURCES], *files, recipe.command)
        if self._is_needed(made, origin):
            folder = self.work / recipe.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, source in files.items():
                shutil.copyfile(source, folder / name)
            self._run(
                f"{recipe.name}: packing", [*shlex.split(recipe.command), str(self.store), "-f"], [made], origin
            )
        return made

    def weights(self, recipe: Recipe) -> Path:
        """Return the weights of an archive, made now if they are not fresh."""
        made = self.work / "weights" / recipe.weights
        before = [self.weights(BY_NAME[recipe.starts_from])] if recipe.starts_from else []
        sources = [ROOT / source for source in (recipe.script, *recipe.sources)]
        versions = [metadata.version(package) for package in recipe.packages]
        brief = ["--brief"] if self.is_brief and recipe.is_long else []
        origin = origin_of(sources + before, *versions, *brief, sys.version)
        all_made = [made, *(made.with_name(name) for name in recipe.beside)]
        if any(self._is_needed(each, origin) for each in all_made):
            start = ["--weights", str(before[0])] if before else []
            command = [sys.executable, str(ROOT / recipe.script), *start, *brief, "--output", str(made.parent)]
            self._run(f"{recipe.name}: {recipe.script}", command, all_made, origin)
        return made

    def _is_needed(self, made: Path, origin: str) -> bool:
        if made in self.made:
            return False
        return self.is_forced or not self.stamps.is_fresh(made, origin)

    def _run(self, what: str, command: list[str], made: list[Path], origin: str) -> None:
        """Run one command in the work folder and stamp what it made.

        Raises:
            SystemExit: the command failed, or did not make a file; what it wrote is on the terminal.
        """
        print(what, flush=True)
        started = time.monotonic()
        program = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
        # TorchScript writes some sets in the order of their hashes; a fixed seed gives the same bytes each time.
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run([program, *command[1:]], cwd=self.work, env=environment, check=False)
        if ended.returncode or not all(each.is_file() for each in made):
            raise SystemExit(f"{what}: {shlex.join(command)} in {self.work} ended with {ended.returncode}.")
        for each in made:
            self.stamps.add(each, origin)
            self.made.add(each)
        size = sum(each.stat().st_size for each in made)
        print(f"  {made[0].name}, {size / 1e3:.0f} kB, {time.monotonic() - started:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BY_NAME), metavar="NAME", help="may be repeated")
    parser.add_argument("--without-long", action="store_true", help="leave out what trains for over half a minute")
    parser.add_argument("--force", action="store_true", help="make everything anew")
    parser.add_argument("--brief", action="store_true", help="train a few seconds: for tests, the answers are poor")
    parser.add_argument("--store", type=Path, default=ROOT / "model-store", help="where the archives go")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "archives", help="weights and archive folders")
    arguments = parser.parse_args()
    builder = Builder(arguments.store, arguments.work, arguments.force, arguments.brief)
    names = arguments.only or BY_NAME
    wanted = [BY_NAME[name] for name in names if not (arguments.without_long and BY_NAME[name].is_long)]
    archives = {builder.archive(recipe) for recipe in wanted}
    made = [archive.name for archive in archives & builder.made]
    print(f"{builder.store} is up to date; made now: {', '.join(sorted(made)) or 'nothing'}.")


if __name__ == "__main__":
    main()
