"""MXNet's arrays as answers."""

from mms.utils.mxnet.ndarray import top_probability

__all__ = ["top_probability"]
