"""``ArgParser``: the flags of ``torch-model-archiver``."""

from __future__ import annotations

from marserve.cli.torch_archiver import ModelArchiverConfig, parse


class ArgParser:
    """Reads the command line of the running script."""

    @staticmethod
    def export_model_args_parser() -> ModelArchiverConfig:
        """Return what the flags ask for; ends the process by 2 where they are wrong."""
        return parse()
