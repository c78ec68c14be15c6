"""MXNet's arrays as answers."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence


def top_probability(data: Any, labels: Sequence[str], top: int = 5) -> List[Dict[str, Any]]:
    """Return the likeliest classes of the first item of ``data``, (batch, class), the likeliest first."""
    import numpy

    values = data.asnumpy()
    row = values.reshape(values.shape[0], -1)[0]
    order = numpy.argsort(-row, kind="stable")[:top]
    return [{"probability": float(row[index]), "class": labels[index]} for index in order]
