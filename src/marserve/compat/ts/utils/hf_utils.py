"""Weights from the Hugging Face Hub."""

from __future__ import annotations

from typing import Union

from ..handler_utils.libraries import library

_WEIGHTS = ["*.json", "*.pt", "*.bin", "*.txt", "*.model", "*.pth", "*.safetensors", "original/*"]


def download_model(
    model_id: str = "meta-llama/Meta-Llama-3.1-8B-Instruct",
    revision: str = "main",
    model_path: str = ".cache",
    use_auth_token: Union[bool, str] = True,
) -> str:
    """Fetch a model's weights, tokenizer and configuration into ``model_path`` and return their folder.

    Args:
        model_id: its name on the hub.
        revision: a branch, tag or commit.
        model_path: folder that keeps what was fetched.
        use_auth_token: a token of the hub, or whether the one of ``huggingface-cli login`` is shown.

    Raises:
        ModuleNotFoundError: huggingface_hub is not there.
    """
    path: str = library("huggingface_hub", "huggingface_hub").snapshot_download(
        repo_id=model_id, revision=revision, allow_patterns=_WEIGHTS, cache_dir=model_path, token=use_auth_token
    )
    return path
