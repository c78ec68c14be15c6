"""``MXNetModelServiceWorker``: a name that scripts import; marserve's workers are not started this way."""

from __future__ import annotations

import sys

_INSTEAD = (
    "marserve's workers are started by its server, which they speak a protocol of their own with. Start the server "
    "(multi-model-server --start), or load an archive into this process: marserve.load(path).predict(value)."
)


class MXNetModelServiceWorker:
    """Cannot be made.

    Raises:
        NotImplementedError: always; says what to use instead.
    """

    def __init__(self, *args: object, **named: object) -> None:
        raise NotImplementedError(_INSTEAD)


if __name__ == "__main__":
    sys.exit(_INSTEAD)
