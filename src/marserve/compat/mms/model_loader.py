"""``ModelLoaderFactory``: loads a model from a folder, for tests of handlers that go through it."""

from __future__ import annotations

from typing import Optional

from ts.model_loader import ModelLoader, TsModelLoader

from .service import Service

__all__ = ["LegacyModelLoader", "MmsModelLoader", "ModelLoader", "ModelLoaderFactory"]


class MmsModelLoader:
    """Loads an unpacked archive, of any age, as marserve's workers do."""

    def load(
        self, model_name: str, model_dir: str, handler: str, gpu_id: Optional[int], batch_size: Optional[int]
    ) -> Service:
        """Return the service of ``model_dir``, initialized.

        Raises:
            LoadError: no such handler, or it raised; holds its traceback.
        """
        return TsModelLoader().load(model_name, model_dir, handler, gpu_id, batch_size)


#: Archives of 0.x have another manifest, and the same loader.
LegacyModelLoader = MmsModelLoader


class ModelLoaderFactory:
    """Gives the loader."""

    @staticmethod
    def get_model_loader(model_dir: str) -> MmsModelLoader:
        """Return the loader of a folder."""
        return MmsModelLoader()
