"""Cannot be loaded."""

raise RuntimeError("as intended")
