"""``multi-model-export``: of before release 1.0; in its place there is ``model-archiver``."""

from __future__ import annotations


def main() -> None:
    """Say so."""
    print("multi-model-export is no longer supported. Pack the model's folder with model-archiver.")


if __name__ == "__main__":
    main()
