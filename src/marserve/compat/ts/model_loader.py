"""``TsModelLoader``: loads a model from a folder, for tests of handlers that go through it."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Optional

from marserve.archive.manifest import read_manifest
from marserve.service.metrics import MetricsStore
from marserve.worker.loader import load_entry
from marserve.worker.steps import NoSteps

from .service import Service


class ModelLoader(ABC):
    """Loads models."""

    @abstractmethod
    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: Optional[str] = None,
        gpu_id: Optional[int] = None,
        batch_size: Optional[int] = None,
        envelope: Optional[str] = None,
        limit_max_image_pixels: Optional[bool] = True,
    ) -> Service:
        """Return the service of a model."""


class TsModelLoader(ModelLoader):
    """Loads an unpacked archive as marserve's workers do."""

    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: Optional[str] = None,
        gpu_id: Optional[int] = None,
        batch_size: Optional[int] = None,
        envelope: Optional[str] = None,
        limit_max_image_pixels: Optional[bool] = True,
        metrics_cache: Optional[MetricsStore] = None,
    ) -> Service:
        """Return the service of ``model_dir``, initialized.

        Raises:
            LoadError: no such handler, or it raised; holds its traceback.
        """
        folder = Path(os.path.abspath(model_dir))
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        manifest = read_manifest(folder)
        raw = manifest.raw or None
        service = Service(
            model_name, str(folder), raw, None, gpu_id, batch_size, limit_max_image_pixels is not False, metrics_cache
        )
        entry = load_entry(folder, manifest, handler or "", service.context, NoSteps(), envelope or "")
        service._entry_point = entry.handle
        return service


class ModelLoaderFactory:
    """Gives the loader."""

    @staticmethod
    def get_model_loader() -> TsModelLoader:
        """Return a loader."""
        return TsModelLoader()
