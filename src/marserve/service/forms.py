"""Forms (``multipart/form-data``, ``application/x-www-form-urlencoded``) taken apart, exact to the byte."""

from __future__ import annotations

import re
from typing import List, Optional, Tuple
from urllib.parse import unquote_to_bytes

from marserve.errors import BadRequest

MULTIPART = b"multipart/form-data"
URLENCODED = b"application/x-www-form-urlencoded"
#: Name, content type (empty for a plain field), value.
Field = Tuple[bytes, bytes, bytes]

_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*(name|filename\*?)=(?:"((?:[^"\\]|\\.)*)"|([^\s;]*))', re.IGNORECASE)
_ESCAPED = re.compile(rb'\\(["\\])')


def is_form(content_type: bytes, *, needs_boundary: bool) -> bool:
    """Whether a body of that type is a form; without a boundary a multipart one is none where that is needed."""
    mime = content_type.partition(b";")[0].strip().lower()
    return mime == URLENCODED or (mime == MULTIPART and bool(not needs_boundary or _BOUNDARY.search(content_type)))


def is_urlencoded(content_type: bytes) -> bool:
    """Whether a body of that type is a form of the kind ``x-www-form-urlencoded``."""
    return content_type.partition(b";")[0].strip().lower() == URLENCODED


def read_form(content_type: bytes, body: bytes) -> List[Field]:
    """Return the fields of a form in their order.

    A file keeps its own content type (``application/octet-stream`` when it names none); what a plain field
    declares is ignored, as the old servers do.

    Raises:
        BadRequest: the body is not the form that its content type promises.
    """
    if is_urlencoded(content_type):
        return _read_urlencoded(body)
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise BadRequest("The content type multipart/form-data names no boundary.", _HINT)
    return _read_multipart(b"--" + (match.group(1) or match.group(2)), body)


_HINT = "Let the HTTP client build the form: curl -F data=@file sends one."


def _read_urlencoded(body: bytes) -> List[Field]:
    fields = []
    for pair in body.replace(b"+", b" ").split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            fields.append((unquote_to_bytes(name), b"", unquote_to_bytes(value)))
    return fields


def _read_multipart(delimiter: bytes, body: bytes) -> List[Field]:
    """Cut ``body`` at its delimiters (RFC 2046, 5.1.1): each begins a line and belongs to that line's break."""
    if body.startswith(delimiter):
        at = len(delimiter)
    else:  # a preamble, which nobody reads
        start = body.find(b"\r\n" + delimiter)
        if start < 0:
            raise BadRequest("The form does not hold the boundary that its content type names.", _HINT)
        at = start + 2 + len(delimiter)
    fields = []
    while not body.startswith(b"--", at):
        line_end = body.find(b"\r\n", at)
        end = body.find(b"\r\n" + delimiter, line_end)
        if line_end < 0 or end < 0:
            raise BadRequest("The form breaks off before its last boundary.", _HINT)
        fields.append(_read_part(body[line_end:end]))
        at = end + 2 + len(delimiter)
    return fields


def _read_part(part: bytes) -> Field:
    """Return the field of ``part``, which begins with the line break before its headers."""
    head, blank, value = part.partition(b"\r\n\r\n")
    name: Optional[bytes] = None
    is_file = False
    content_type = b""
    for line in head.split(b"\r\n"):
        key, _, text = line.partition(b":")
        key = key.strip().lower()
        if key == b"content-type":
            content_type = text.strip()
        elif key == b"content-disposition":
            for parameter, quoted, bare in _PARAMETER.findall(text):
                if parameter.lower() == b"name":
                    name = _ESCAPED.sub(rb"\1", quoted) or bare
                else:
                    is_file = True
    if name is None or not blank:
        raise BadRequest("A part of the form has no Content-Disposition header with a name.", _HINT)
    return name, (content_type or b"application/octet-stream") if is_file else b"", value
