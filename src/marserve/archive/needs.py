"""What the workers of an archive run with where that is not just what the server has.

Two keys of ``model-config.yaml`` give workers an environment of their own, without any of the server's packages::

    python: "3.11"                    # a version, a range such as ">=3.10,<3.12", or the path of an interpreter
    requirements: requirements.txt    # a file of the archive, or a list of requirements

One of them is enough: without ``python`` it is the server's interpreter, without ``requirements`` the file that the
manifest names as its requirements. Without both, that file is installed on top of what the server has, if at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Mapping, NamedTuple, Optional, Tuple

from marserve.archive.manifest import Manifest
from marserve.errors import EnvironmentFault

#: Keys of a model-config that give its workers an environment of their own.
KEYS = ("python", "requirements")
#: Lines of a requirements file that bring another one along.
_INCLUDES = ("-r", "--requirement", "-c", "--constraint")
_HINT = "docs/archives.md shows the keys python and requirements of a model-config."


class Asked(NamedTuple):
    """The two keys of a model-config: the interpreter, a file, a list; all empty where neither is there."""

    python: str = ""
    file: str = ""
    packages: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Needs:
    """An environment as it is asked for.

    Attributes:
        folder: of the archive; requirements may name files in it.
        python: as uv takes it: a version, a range, a path; "" for the server's own.
        requirements: a file of the archive; None for none.
        packages: requirements, as in a line of such a file.
        is_alone: nothing of the server's packages is there.
    """

    folder: Path
    python: str = ""
    requirements: Optional[Path] = None
    packages: Tuple[str, ...] = ()
    is_alone: bool = False

    def lines(self) -> List[bytes]:
        """Return every requirement and constraint, sorted, those of the files that a file brings along too."""
        found = [line.encode() for line in self.packages]
        if self.requirements is not None:
            found += _lines(self.requirements, "")
        return sorted(found)

    @property
    def names_files(self) -> bool:
        """Whether files beside the requirements are named: what is installed of them may point there for ever."""
        return any(map(_is_beside, self.lines()))


def needs_of(
    config: Mapping[str, object], manifest: Manifest, folder: Path, installs: bool = False
) -> Optional[Needs]:
    """Return what the workers of an unpacked archive need; None: what the server has.

    Args:
        installs: whether requirements are installed where the model-config has neither key.

    Raises:
        EnvironmentFault: a key cannot be understood, or a file is missing.
    """
    asked = asked_of(config)
    is_alone = any(asked)
    file = asked.file or (manifest.requirements_file if (is_alone and not asked.packages) or installs else "")
    if not (is_alone or file or config.get("useVenv") is True):
        return None
    if file and not (folder / file).is_file():
        raise EnvironmentFault(f"The archive has no file {file}.", "Pack it again with that file.")
    return Needs(folder, asked.python, folder / file if file else None, asked.packages, is_alone)


def asked_of(config: Mapping[str, object]) -> Asked:
    """Return what a model-config asks for.

    Raises:
        EnvironmentFault: a key cannot be understood.
    """
    file, packages = _requirements(config.get("requirements"))
    return Asked(_python(config.get("python")), file, packages)


def _python(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise EnvironmentFault(
            f"python in the model-config is the number {value}.", "Write it in quotes: 3.10 would be 3.1 without."
        )
    if not isinstance(value, str) or not value.strip() or value.startswith("-"):
        raise EnvironmentFault(f"python in the model-config is {value!r}, which names no interpreter.", _HINT)
    return value.strip()


def _requirements(value: object) -> Tuple[str, Tuple[str, ...]]:
    """Return a file's name, or a list."""
    if value is None:
        return "", ()
    is_inside = isinstance(value, str) and value and not os.path.isabs(value) and ".." not in value.split("/")
    if isinstance(value, str) and is_inside:
        return value, ()
    if isinstance(value, list) and value and all(map(_is_requirement, value)):
        return "", tuple(line.strip() for line in value)
    raise EnvironmentFault(
        f"requirements in the model-config is {value!r}: neither a file of the archive nor a list of packages.", _HINT
    )


def _is_requirement(line: object) -> bool:
    return isinstance(line, str) and bool(line.strip()) and not line.lstrip().startswith("-")


def _lines(file: Path, prefix: str, seen: Tuple[Path, ...] = ()) -> Iterator[bytes]:
    """Yield the lines of a requirements file behind ``prefix``, and in their place those of files that it names."""
    for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        words = line.split(" #", 1)[0].replace("=", " ", 1).split() if line.startswith("-") else []
        other = file.parent / words[1] if len(words) == 2 and words[0] in _INCLUDES else None
        if other is not None and other.is_file():
            constrains = words[0] in _INCLUDES[2:]
            if other not in (*seen, file):
                yield from _lines(other, "constraint " if constrains else prefix, (*seen, file))
        elif line.strip() and not line.startswith("#"):
            yield (prefix + line.strip()).encode("utf-8", "surrogateescape")


def _is_beside(line: bytes) -> bool:
    return line.startswith((b".", b"-")) or (b"/" in line and b"://" not in line)
