"""Images as MXNet's arrays."""

from mms.utils.mxnet.image import color_normalize, fixed_crop, read, resize, transform_shape, write

__all__ = ["color_normalize", "fixed_crop", "read", "resize", "transform_shape", "write"]
