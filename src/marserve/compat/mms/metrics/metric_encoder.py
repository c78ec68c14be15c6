"""``MetricEncoder``: metrics and dimensions as JSON."""

from __future__ import annotations

import json

from .dimension import Dimension
from .metric import Metric


class MetricEncoder(json.JSONEncoder):
    """Writes metrics and dimensions as their parts by name."""

    def default(self, o: object) -> object:
        """Return what JSON can say of ``o``."""
        if isinstance(o, (Metric, Dimension)):
            return o.to_dict()
        return super().default(o)
