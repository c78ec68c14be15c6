"""What a service is told about itself and its requests, and how it sets status and headers of an answer.

One ``Context`` lives as long as the worker. Each batch begins with ``begin``, which keeps the requests and
builds nothing: headers, ids and processors come into being when a service asks for them.
Source of names and defaults: TorchServe ``ts/context.py``, Multi Model Server ``mms/context.py``.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from marserve.service.codec import Part, spread
from marserve.service.metrics import DECLARED, MetricsStore

#: Headers as received: flat (name, value, name, value), or the same joined by line feeds.
RawHeaders = Union[Sequence[bytes], bytes]
#: A request's headers as a service sees them: text, and for each part ``{"content-type": text}``.
Headers = Dict[str, Any]


class RequestInfo:
    """What the context knows of one request; made by whoever runs the batch.

    Attributes:
        id: the request's id, or a function that formats it when a service asks.
        headers: raw, in the client's letter case.
        extra: further headers of the server's own (``explain``, ``url_path``), flat; they win over the client's.
        parts: the named parts of the body; each part, or field of a form, gets an entry among the headers.
        deadline: moment on this process's monotonic clock after which nobody wants the answer; None for never.
    """

    __slots__ = ("deadline", "extra", "headers", "id", "parts")

    def __init__(
        self,
        id: Union[str, Callable[[], str]] = "",
        headers: RawHeaders = (),
        extra: Sequence[bytes] = (),
        parts: Sequence[Part] = (),
        deadline: Optional[float] = None,
    ) -> None:
        self.id = id
        self.headers = headers
        self.extra = extra
        self.parts = parts
        self.deadline = deadline

    @property
    def wants_description(self) -> bool:
        """Whether the service is asked to describe itself, not to predict."""
        return False

    def id_text(self) -> str:
        """Return the id as text."""
        return self.id if isinstance(self.id, str) else self.id()

    def header_map(self) -> Headers:
        """Return the headers by name, original letter case; of duplicates the last wins."""
        found: Headers = {}
        _add_pairs(found, self.headers)
        for name, content_type, _ in spread(self.parts):
            # Without parameters (charset), as the old servers' Java cut it; the header of that name has them.
            mime = content_type.partition(b";")[0].strip()
            found[name.decode("utf-8", "replace")] = {"content-type": mime.decode("latin-1")}
        _add_pairs(found, self.extra)
        return found


def _add_pairs(found: Headers, headers: RawHeaders) -> None:
    """Add headers to ``found``; a value that is no UTF-8 is read as latin-1, which never fails."""
    if isinstance(headers, (bytes, bytearray)):
        headers = bytes(headers).split(b"\n") if headers else ()
    for name, value in zip(headers[::2], headers[1::2]):
        try:
            found[name.decode("latin-1")] = value.decode("utf-8")
        except UnicodeDecodeError:
            found[name.decode("latin-1")] = value.decode("latin-1")


class RequestProcessor:
    """Headers of one request, and status and headers of its answer.

    Args:
        request_header: the headers by name, or the request that they are read from when asked for.
    """

    def __init__(self, request_header: Union[Headers, RequestInfo, None] = None) -> None:
        self._source = request_header
        self._lower: Optional[Headers] = None
        self._status_code = 200
        self._reason_phrase: Optional[str] = None
        self._response_header: Dict[str, str] = {}

    @property
    def _request_header(self) -> Headers:
        # Handlers in the wild read this attribute directly, so it keeps the old servers' name.
        if isinstance(self._source, RequestInfo):
            self._source = self._source.header_map()
        elif self._source is None:
            self._source = {}
        return self._source

    def get_request_property(self, key: str) -> Any:
        """Return a request header, or None; a miss in this letter case is looked up in any."""
        headers = self._request_header
        value = headers.get(key)
        if value is None and key not in headers and isinstance(key, str):
            if self._lower is None:
                self._lower = {name.lower(): value for name, value in headers.items()}
            value = self._lower.get(key.lower())
        return value

    def get_request_properties(self) -> Headers:
        """Return all request headers by name."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: Optional[str] = None) -> None:
        """Set the answer's status and reason phrase."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        """Return the answer's status."""
        return self._status_code

    def get_response_status_phrase(self) -> Optional[str]:
        """Return the answer's reason phrase, None when nobody set one."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._response_header[key] = value

    def get_response_headers(self) -> Dict[str, str]:
        """Return the answer's headers."""
        return self._response_header

    def get_response_header(self, key: str) -> Optional[str]:
        """Return one header of the answer, or None."""
        return self._response_header.get(key)

    @property
    def is_untouched(self) -> bool:
        """Whether the answer has neither a status nor a header of the service's choice."""
        return not self._response_header and self._status_code == 200 and not self._reason_phrase


class RequestProcessors(List[RequestProcessor]):
    """The processors of a batch: a list, which also answers as the single processor of old MMS releases.

    Setters reach every request, getters ask the first: archives in the wild use both shapes.
    """

    def report_status(self, code: int, reason_phrase: Optional[str] = None) -> None:
        """Set the status of every answer."""
        for processor in self:
            processor.report_status(code, reason_phrase)

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of every answer."""
        for processor in self:
            processor.add_response_property(key, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("get_", "_request")) and self:
            return getattr(self[0], name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Context:
    """What a service is told. An ordinary object: services hang their own attributes on it.

    Args:
        model_name: the name under which the model is served.
        model_dir: folder of the unpacked archive.
        manifest: the archive's manifest as it was written.
        batch_size: most requests that one call of the service gets.
        gpu: number of the GPU, None for the CPU.
        mms_version: the server's version.
        limit_max_image_pixels: whether huge images are refused.
        metrics: where the service's own metrics go.
        model_yaml_config: content of the model's ``model-config.yaml``.
        thread_count: threads that one call of the model may use; 0 leaves the choice to the framework.
        allowed_input_urls: expressions of the addresses that requests may name; see ``service/addresses.py``.

    Attributes:
        device: ``cpu``, or ``cuda:`` and the number of the GPU.
        will_fork: whether this process loads the service for others, which are forked from it, and serves nothing
            itself: ``initialize`` must start no threads then, ``after_fork(context)`` may.
        stopping_criteria: one callable a request, set by services that generate in steps.
        header_key_sequence_id, header_key_sequence_start, header_key_sequence_end: names of the headers.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Optional[Mapping[str, Any]],
        batch_size: int = 1,
        gpu: Optional[int] = None,
        mms_version: str = "",
        limit_max_image_pixels: bool = True,
        metrics: Optional[MetricsStore] = None,
        model_yaml_config: Optional[Dict[str, Any]] = None,
        thread_count: int = 1,
        allowed_input_urls: Sequence[str] = (),
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self._system_properties: Dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.model_yaml_config: Dict[str, Any] = model_yaml_config if model_yaml_config is not None else {}
        self.device = "cpu" if gpu is None else f"cuda:{gpu}"
        self.thread_count = thread_count
        self.allowed_input_urls = allowed_input_urls
        self.will_fork = False
        if metrics is None:
            metrics = MetricsStore(lambda: self.request_ids, model_name)
            metrics.declare(DECLARED)
        self.metrics = metrics
        self.stopping_criteria: Optional[Sequence[Callable[..., Any]]] = None
        self.cl_socket: Any = None
        self._send: Optional[Callable[[Mapping[int, Any], int, str], None]] = None
        self.header_key_sequence_id = "ts_request_sequence_id"
        self.header_key_sequence_start = "ts_request_sequence_start"
        self.header_key_sequence_end = "ts_request_sequence_end"
        # Of the running batch. The last two are built from the first when a service asks.
        self.requests: Sequence[RequestInfo] = ()
        self.has_sent = False
        self._processors: Optional[RequestProcessors] = None
        self._ids: Optional[Dict[int, str]] = None

    def send_intermediate(
        self, values: Union[Sequence[Any], Mapping[int, Any]], status: int = 200, phrase: str = ""
    ) -> None:
        """Send a piece of its answer to each request of the batch, now; what ``handle`` returns is the last piece.

        Each piece reaches the client as one HTTP chunk. Status, phrase and headers go with the first; what the
        service has set on the context by then goes too.

        Args:
            values: one a request, in their order, or by position those of some requests alone; encoded like a result
                of ``handle``.
            status: 200 for the one that is set on the context.
            phrase: empty for the one that is set on the context.

        Raises:
            ValueError: not one value a request, or a position beyond the batch.
            RuntimeError: nobody receives pieces, as in a call without a server.
        """
        if self._send is None:
            raise RuntimeError("There is no server that could pass on pieces of an answer.")
        count = len(self.requests)
        if isinstance(values, Mapping):
            pieces = dict(values)
            beyond = [index for index in pieces if index not in range(count)]
            if beyond:
                raise ValueError(f"A piece was given for request {beyond[0]!r}, and the batch has {count} requests.")
        else:
            pieces = dict(enumerate(values))
            if len(pieces) != count:
                raise ValueError(f"{len(pieces)} pieces were given for {count} requests.")
        self.has_sent = True
        self._send(pieces, status, phrase)

    def for_batch(self) -> Context:
        """Return a context for one of several batches that run beside each other.

        Requests, answers and the metrics' ids are its own; every other attribute is the one that is here, so what
        a service keeps on its context in ``initialize`` is seen by all batches.
        """
        other = copy.copy(self)
        other.metrics = self.metrics.for_batch(lambda: other.request_ids)
        return other

    def begin(self, requests: Sequence[RequestInfo]) -> None:
        """Begin a batch; nothing of the one before is left. Position in ``requests`` is the service's ``idx``."""
        self.requests = requests
        self.has_sent = False
        self._processors = None
        self._ids = None

    def touched(self) -> Optional[RequestProcessors]:
        """Return the batch's processors if the service asked for any, else None: all answers are plain."""
        return self._processors

    @property
    def system_properties(self) -> Dict[str, Any]:
        """The folder, GPU and batch size under the names of the old servers; see the constructor for the six."""
        return self._system_properties

    @property
    def request_ids(self) -> Dict[int, str]:
        """The ids of the batch's requests by position."""
        if self._ids is None:
            self._ids = {index: request.id_text() for index, request in enumerate(self.requests)}
        return self._ids

    @request_ids.setter
    def request_ids(self, request_ids: Dict[int, str]) -> None:
        self._ids = request_ids

    @property
    def request_processor(self) -> RequestProcessors:
        """One processor a request."""
        if self._processors is None:
            self._processors = RequestProcessors([RequestProcessor(request) for request in self.requests])
        return self._processors

    @request_processor.setter
    def request_processor(self, processors: Sequence[RequestProcessor]) -> None:
        self._processors = RequestProcessors(processors)

    @property
    def _request_processor(self) -> RequestProcessors:
        # Handlers in the wild read this attribute too, from when there was no other way to a header.
        return self.request_processor

    def _processor(self, idx: Union[int, str]) -> RequestProcessor:
        """Return a request's processor; MMS up to 1.0.4 addressed requests by id, so an id will do."""
        if isinstance(idx, str):
            idx = next((index for index, id in self.request_ids.items() if id == idx), 0)
        return self.request_processor[idx]

    def get_request_id(self, idx: int = 0) -> Optional[str]:
        """Return a request's id, None beyond the batch."""
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """Return a request header, or None. A part's name gives ``{"content-type": text}``."""
        return self._processor(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> Headers:
        """Return all headers of a request by name."""
        return self._processor(idx).get_request_properties()

    def get_sequence_id(self, idx: int) -> Optional[str]:
        """Return the id of the sequence that a request belongs to, or None."""
        value = self.get_request_header(idx, self.header_key_sequence_id)
        return None if value is None else str(value)

    def set_response_content_type(self, idx: Union[int, str], value: str) -> None:
        """Set the content type of an answer."""
        self._processor(idx).add_response_property("content-type", value)

    def get_response_content_type(self, idx: Union[int, str]) -> Optional[str]:
        """Return the content type that the service set for an answer, or None."""
        return self._processor(idx).get_response_header("content-type")

    def set_response_status(self, code: int = 200, phrase: Optional[str] = "", idx: int = 0) -> None:
        """Set status and reason phrase of one answer; nothing while the service is loaded, where there is none."""
        if self.request_processor:
            self._processor(idx).report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: Optional[str] = "") -> None:
        """Set status and reason phrase of every answer of the batch."""
        self.request_processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> Tuple[int, Optional[str]]:
        """Return status and reason phrase of an answer."""
        processor = self._processor(idx)
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_header(self, idx: Union[int, str], key: str, value: str) -> None:
        """Set a header of an answer."""
        self._processor(idx).add_response_property(key, value)

    def get_response_headers(self, idx: Union[int, str]) -> Dict[str, str]:
        """Return the headers that the service set for an answer."""
        return self._processor(idx).get_response_headers()

    def deadline_left(self, idx: int = 0) -> Optional[float]:
        """Return the seconds until nobody wants a request's answer (negative: past), None for no deadline."""
        deadline = self.requests[idx].deadline
        return None if deadline is None or deadline == math.inf else deadline - time.monotonic()
