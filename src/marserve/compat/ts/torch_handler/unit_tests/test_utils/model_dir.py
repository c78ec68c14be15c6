"""Files for a model's folder in unit tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Mapping
from urllib.request import urlopen


def copy_files(src_dir: Path, dst_dir: Path, files: Mapping[str, str]) -> None:
    """Copy files under new names: ``files`` has the new ones by the old."""
    for source, target in files.items():
        shutil.copyfile(src_dir / source, dst_dir / target)


def download_model(model_url: str, model_dir: Path) -> None:
    """Fetch weights and write them as ``model.pt``."""
    with urlopen(model_url) as answer, open(model_dir / "model.pt", "wb") as file:
        shutil.copyfileobj(answer, file)
