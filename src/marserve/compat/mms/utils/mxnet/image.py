"""Images as MXNet's arrays, (height, width, channel) where nothing else is said."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any, Optional, Tuple


def transform_shape(img_arr: Any, dim_order: str = "NCHW") -> Any:
    """Return an image as a batch of one: (1, channel, height, width), or (1, height, width, channel) for ``NHWC``."""
    import mxnet

    _check_order(dim_order, ("NCHW", "NHWC"))
    arranged = mxnet.nd.transpose(img_arr, (2, 0, 1)) if dim_order == "NCHW" else img_arr
    return mxnet.nd.expand_dims(arranged, axis=0)


def read(buf: Any, flag: int = 1, to_rgb: bool = True, out: Optional[Any] = None) -> Any:
    """Return the image of a file's bytes; ``flag`` 0 makes it grey."""
    from mxnet import image

    return image.imdecode(buf, flag, to_rgb, out)


def write(img_arr: Any, flag: int = 1, format: str = "jpeg", dim_order: str = "CHW") -> str:
    """Return an image, (channel, height, width) or (height, width, channel) for ``HWC``, as base64 of a file."""
    import mxnet
    from PIL import Image

    _check_order(dim_order, ("CHW", "HWC"))
    arranged = mxnet.nd.transpose(img_arr, (1, 2, 0)) if dim_order == "CHW" else img_arr
    pixels = arranged.astype("uint8").asnumpy()
    if flag != 1:
        pixels = pixels.reshape(pixels.shape[:2])
    file = BytesIO()
    Image.fromarray(pixels).save(file, format=format)
    return base64.b64encode(file.getvalue()).decode()


def resize(src: Any, new_width: int, new_height: int, interp: int = 2) -> Any:
    """Return an image in another size; ``interp`` is MXNet's number of a way to do it."""
    from mxnet import image

    return image.imresize(src, new_width, new_height, interp)


def fixed_crop(
    src: Any, x0: int, y0: int, w: int, h: int, size: Optional[Tuple[int, int]] = None, interp: int = 2
) -> Any:
    """Return a part of an image, in the ``size`` (width, height) where one is given."""
    from mxnet import image

    return image.fixed_crop(src, x0, y0, w, h, size, interp)


def color_normalize(src: Any, mean: Any, std: Optional[Any] = None) -> Any:
    """Return an image less ``mean``, divided by ``std``, as float32."""
    from mxnet import image

    return image.color_normalize(src.astype("float32"), mean, std)


def _check_order(dim_order: str, known: Tuple[str, str]) -> None:
    if dim_order not in known:
        raise AssertionError(f"dim_order must be '{known[0]}' or '{known[1]}', not {dim_order!r}.")
