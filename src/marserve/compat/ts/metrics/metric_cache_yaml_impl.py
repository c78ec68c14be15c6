"""``MetricsCacheYamlImpl``: the metrics that a file declares for services."""

from __future__ import annotations

from typing import Any, Dict

from marserve.service.metrics import MetricsStore

from . import metric_cache_errors as errors
from .metric_type_enum import MetricTypes


class MetricsCacheYamlImpl(MetricsStore):
    """A store whose metrics are declared in the part ``model_metrics`` of a file.

    Args:
        config_file_path: the file, in YAML.

    Raises:
        MetricsCacheTypeError: no file is named.
        MetricsCacheIOError: it cannot be read.
        MetricsCachePyYamlError: it is no YAML.
    """

    def __init__(self, config_file_path: str) -> None:
        super().__init__()
        self.config_file_path = config_file_path
        self._document = _read(config_file_path)

    def initialize_cache(self) -> None:
        """Declare the metrics of the file.

        Raises:
            MetricsCacheKeyError: the part is missing, a kind is none, or a metric lacks its name, unit or dimensions.
            MetricsCacheValueError: the part is empty.
        """
        if "model_metrics" not in self._document:
            raise errors.MetricsCacheKeyError(f"{self.config_file_path} has no part model_metrics.")
        section = self._document["model_metrics"]
        if not section:
            raise errors.MetricsCacheValueError(f"The part model_metrics of {self.config_file_path} is empty.")
        for name, metrics in section.items():
            try:
                kind = MetricTypes(name)
            except ValueError as error:
                raise errors.MetricsCacheKeyError(f"{self.config_file_path}: {error}") from error
            for metric in metrics:
                missing = [key for key in ("name", "unit", "dimensions") if key not in metric]
                if missing:
                    raise errors.MetricsCacheKeyError(f"{self.config_file_path}: {metric} has no {missing[0]}.")
                self.add_metric_to_cache(metric["name"], metric["unit"], metric["dimensions"], kind)


def _read(path: str) -> Dict[str, Any]:
    import yaml

    if not path:
        raise errors.MetricsCacheTypeError("No file of metrics is named.")
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except OSError as error:
        raise errors.MetricsCacheIOError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise errors.MetricsCachePyYamlError(f"{path} is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise errors.GeneralMetricsCacheError(f"{path} has no keys at its top level.")
    return document
