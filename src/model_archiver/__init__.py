"""The Python package of ``torch-model-archiver`` under its old name, for scripts that pack models.

marserve's own archiver carries it (``marserve/cli/torch_archiver.py``). Source: TorchServe model archiver 0.12.0.
"""

from .model_archiver import ModelArchiver
from .model_archiver_config import ModelArchiverConfig
from .version import __version__

__all__ = ["ModelArchiver", "ModelArchiverConfig", "__version__"]
