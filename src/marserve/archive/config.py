"""``model-config.yaml`` of an archive, as a dict; its keys are the server's and the service's business."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

from marserve.archive.manifest import Manifest
from marserve.errors import ArchiveError

CONFIG_NAME = "model-config.yaml"


def config_file(manifest: Manifest) -> str:
    """Return which file of an archive configures it; empty for none.

    A TorchServe manifest says so. Those of Multi Model Server cannot; there the usual name counts.
    """
    return manifest.config_file or ("" if manifest.family == "torchserve" else CONFIG_NAME)


def load_config(folder: Path, manifest: Manifest) -> Dict[str, object]:
    """Read the configuration of an unpacked archive; empty when it has none.

    Raises:
        ArchiveError: see ``parse_config``.
    """
    name = config_file(manifest)
    if not name or not (folder / name).is_file():
        return {}
    try:
        return parse_config((folder / name).read_bytes(), name)
    except OSError as error:
        raise ArchiveError(f"{name} cannot be read: {error}.", "Pack the archive again.") from error


def parse_config(text: bytes, name: str) -> Dict[str, object]:
    """Parse the text of a configuration file.

    Raises:
        ArchiveError: no YAML, or no mapping at the top.
    """
    import yaml

    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArchiveError(
            f"{name} is no valid YAML: {error}", "Correct the file and pack the archive again."
        ) from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ArchiveError(f"{name} has no keys at its top level.", "Write it as lines of key: value.")
    return {str(key): value for key, value in config.items()}
