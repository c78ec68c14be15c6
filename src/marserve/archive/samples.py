"""Made-up request bodies in encoded form, for signatures whose ``input_type`` is not JSON."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from typing import Tuple

from marserve.archive.tensors import TensorSpec
from marserve.errors import SignatureError

#: Height and width where the signature leaves them free.
_DEFAULT_SIDE = 28


def encoded_sample(content_type: str, spec: TensorSpec, source: random.Random) -> Tuple[bytes, str]:
    """Return a body and its content type: the example, a grey image of random points, or a text.

    Raises:
        SignatureError: nothing can be made up for ``content_type``.
    """
    if isinstance(spec.example, dict) and isinstance(spec.example.get("b64"), str):
        return base64.b64decode(spec.example["b64"]), content_type
    if content_type in ("image/png", "image/*"):
        return _png(*_sides(spec), source), "image/png"
    if content_type == "image/jpeg":
        return _jpeg(*_sides(spec), source), content_type
    if content_type.startswith("text/"):
        return str(spec.example or "text").encode(), content_type
    raise SignatureError(
        f"No example of {content_type} can be made up for the input {spec.name!r}.",
        'Give the input an "example" in signature.json: {"b64": "…"} with the body in base64.',
    )


def _sides(spec: TensorSpec) -> Tuple[int, int]:
    """Height and width of shape (H, W), (H, W, channels) or (channels, H, W)."""
    shape = spec.shape[1:] if len(spec.shape) == 3 and spec.shape[0] in (1, 3, 4) else spec.shape
    sides = [side or _DEFAULT_SIDE for side in shape[:2]]
    return (sides[0], sides[1]) if len(sides) == 2 else (_DEFAULT_SIDE, _DEFAULT_SIDE)


def _pixels(height: int, width: int, source: random.Random) -> bytes:
    return bytes(source.getrandbits(8) for _ in range(height * width))


def _png(height: int, width: int, source: random.Random) -> bytes:
    """Eight-bit grey PNG, filter 0 on each line. Source: PNG specification, 5.2 and 11.2."""
    pixels = _pixels(height, width, source)
    lines = b"".join(b"\0" + pixels[row * width : (row + 1) * width] for row in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _jpeg(height: int, width: int, source: random.Random) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise SignatureError(
            "Making up a JPEG needs Pillow, which is not installed.", "Install pillow, or give an example."
        ) from error
    import io

    body = io.BytesIO()
    Image.frombytes("L", (width, height), _pixels(height, width, source)).save(body, "JPEG")
    return body.getvalue()
