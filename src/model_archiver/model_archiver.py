"""``ModelArchiver``: packs what a config names."""

from __future__ import annotations

from .model_archiver_config import ModelArchiverConfig
from .model_packaging import generate_model_archive


class ModelArchiver:
    """The face of the package."""

    @staticmethod
    def generate_model_archive(config: ModelArchiverConfig) -> None:
        """Write the archive; raises as ``model_packaging.package_model`` does."""
        generate_model_archive(config)
