"""Rows of the REST doors that no pair holds: addresses, TLS, CORS, streams, what workers see, access lines."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate

from marserve.doors.http.certificates import self_signed_pem
from pairs import PATIENCE, free_ports
from rows import House, Product, Running

ECHO = "def handle(data, context):\n    return ['said'] * len(data) if data else None\n"
SEEN = """
import json, os

def handle(data, context):
    return [json.dumps(dict(os.environ)) for _ in data] if data else None
"""
STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    for number in range(3):
        send_intermediate_predict_response(["piece %d," % number], context.request_ids, "More", 200, context)
    return ["the end"]
"""
#: Of a batch of two, one request alone is answered in pieces.
UNEVEN = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    words = [bytes(row["body"]).decode() for row in data]
    for index, word in enumerate(words):
        context.set_response_status(206, word, index)
    loud = {index: id for index, id in context.request_ids.items() if words[index] == "loud"}
    for number in range(2):
        send_intermediate_predict_response(["piece %d," % number] * len(data), loud, "More", 200, context)
    return ["the end"] * len(data)
"""
TOLD = """
import json

def handle(data, context):
    if data is None:
        return None
    for name in ("X-Request-Id", "Cache-Control", "Expires", "Content-Length", "X-Own"):
        context.set_response_header(0, name, "5")
    return [json.dumps([repr(data[0]["body"]), context.get_all_request_header(0)["body"]])]
"""
HEADERS = """
import json

def handle(data, context):
    if data is None:
        return None
    told = context.get_all_request_header(0)
    return [json.dumps({name: told[name] for name in told if name not in ("explain", "url_path", "body")})]
"""
SAYS = """
class Says:
    def initialize(self, context):
        self.answers = iter([None, "words", "raise", {"a": 1, "b": None}])

    def handle(self, data, context):
        said = next(self.answers)
        if said == "raise":
            raise ValueError("as it was asked")
        if said and "a" in said:
            context.set_response_status(418, "Teapot", 0)
            context.set_response_header(0, "X-Own", "1")
        return [said]
"""
SETTINGS = {
    "allowed_urls": "http://127.0.0.1:1/allowed/.*",
    "blacklist_env_vars": ".*SECRET.*|HIDDEN",
    "cors_allowed_origin": "https://page.example",
    "cors_allowed_methods": "GET, POST, PUT, OPTIONS",
    "cors_allowed_headers": "X-Custom-Header",
    "metrics_mode": "prometheus",
    "ts_open_inference_protocol": "true",
}
ORIGIN = "https://page.example"


@pytest.fixture(scope="module")
def server(shared_house: House) -> Running:
    """A server with the settings of several rows."""
    shared_house.archive("echo", ECHO)
    shared_house.archive("seen", SEEN)
    shared_house.archive("stream", STREAM)
    both = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 60000\n"
    shared_house.archive("uneven", UNEVEN, config=both)
    shared_house.archive("told", TOLD)
    shared_house.archive("says", SAYS)
    environment = {"MY_SECRET_KEY": "1", "HIDDEN": "2", "HIDDEN_NOT": "3", "SEEN": "4"}
    models = ("echo.mar", "seen.mar", "stream.mar", "uneven.mar", "told.mar", "says.mar")
    return shared_house.start(*models, settings=SETTINGS, environment=environment)


# ---- bodies and headers


@pytest.mark.row("E20")
@pytest.mark.row("E21")
@pytest.mark.parametrize(
    ("content_type", "body", "seen"),
    [
        ("text/plain", b"a\xff", "bytearray(b'a\\xff')"),
        ("text/plain; charset=latin-1", "é".encode(), "'é'"),
        ("application/json; charset=utf-8", b'{"a": 1}', "{'a': 1}"),
        ("application/json;charset=utf-8", b"\xff", "bytearray(b'\\xff')"),
    ],
)
def test_what_a_handler_sees_of_a_body(server: Running, content_type: str, body: bytes, seen: str) -> None:
    server.wait_for_workers("told", 1)

    answer = server.ask("/predictions/told", body, headers={"Content-Type": content_type})

    assert answer.json() == [seen, {"content-type": content_type.partition(";")[0]}]


@pytest.mark.row("E26")
@pytest.mark.row("E28")
def test_the_standing_headers_are_the_servers_alone(server: Running) -> None:
    server.wait_for_workers("told", 1)
    connection = http.client.HTTPConnection("127.0.0.1", server.doors["inference"], timeout=PATIENCE)
    connection.request("POST", "/predictions/told", b"x")
    headers = [(name.lower(), value) for name, value in connection.getresponse().getheaders()]
    connection.close()

    names = [name for name, _ in headers]
    assert len(names) == len(set(names))
    assert [name for name, value in headers if value == "5"] == ["x-own"]


@pytest.mark.row("E28")
def test_what_is_no_http_is_told_so(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.doors["inference"]), PATIENCE) as raw:
        raw.sendall(b"GET\r\n\r\n")
        head, _, body = raw.recv(4096).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert re.search(rb"\r\nx-request-id: [0-9a-f-]{36}(\r\n|$)", head)
    assert json.loads(body) == {"code": 400, "type": "BadRequestException", "message": "Invalid HTTP message."}


@pytest.mark.row("E8")
def test_an_empty_name_is_a_name(server: Running) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for answer in (
        server.ask("/invocations?model_name=", "x"),
        server.ask("/invocations", "model_name=&data=1", headers=form),
    ):
        assert answer.json() == {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: "}


@pytest.mark.row("E22")
def test_bytes_that_call_themselves_a_form_without_a_boundary(server: Running) -> None:
    answer = server.ask("/predictions/told", b"raw", headers={"Content-Type": "multipart/form-data"})

    assert answer.json()[0] == repr(bytearray(b"raw"))


@pytest.mark.row("E22")
def test_a_form_that_breaks_off(product: Product, server: Running) -> None:
    said = '--x\r\ncontent-disposition: form-data; name="body"\r\n\r\nwhole\r\n--x\r\ncontent-disposition: form-data'
    answer = server.ask("/predictions/told", said, headers={"Content-Type": "multipart/form-data; boundary=x"})

    if product.is_genuine:  # what is there of it
        assert answer.json()[0] == repr(bytearray(b"whole"))
    else:
        assert (answer.status, answer.json()["message"]) == (400, "The form breaks off before its last boundary.")


@pytest.mark.row("F19")
def test_whatever_a_service_says_of_itself_is_told(server: Running) -> None:
    answers = [server.manage("GET", "/models/says?customized=true") for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 503, 418]
    assert answers[2].json()["message"] == "Prediction failed"
    said = [answers[index].json()[0]["customizedMetadata"] for index in (0, 1, 3)]
    assert said == [{}, {}, {"a": 1}]
    assert answers[3].headers["X-Own"] == "1"


@pytest.mark.row("E10")
@pytest.mark.row("E30")
def test_the_version_that_is_told(server: Running) -> None:
    for door in ("inference", "management"):
        told = server.ask("/", method="OPTIONS", door=door).json()
        assert told["info"]["version"] == "0.12.0"
    assert server.ask("/v2").json()["version"] == "0.12.0"


# ---- streams


def chunks(port: int, target: str) -> tuple[bytes, list[bytes]]:
    """Ask for an answer over a raw socket; return its head, and its chunks as they were cut."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as raw, raw.makefile("rb") as stream:
        raw.sendall(f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head = b"".join(iter(stream.readline, b"\r\n"))
        found = []
        while size := int(stream.readline(), 16):
            found.append(stream.read(size))
            assert stream.readline() == b"\r\n"
        return head, found


@pytest.mark.row("E27")
def test_every_send_is_one_chunk(server: Running) -> None:
    server.wait_for_workers("stream", 1)

    head, pieces = chunks(server.doors["inference"], "/predictions/stream")

    assert pieces == [b"piece 0,", b"piece 1,", b"piece 2,", b"the end"]
    lines = head.decode().lower().split("\r\n")
    assert "transfer-encoding: chunked" in lines
    assert "ts_stream_next: true" in lines
    assert not [line for line in lines if line.startswith("content-length")]


@pytest.mark.row("E27")
def test_a_piece_goes_to_the_request_that_it_names_with_the_status_of_its_own(server: Running) -> None:
    server.wait_for_workers("uneven", 1)

    with ThreadPoolExecutor(2) as threads:
        loud, quiet = threads.map(lambda word: server.ask("/predictions/uneven", word), ("loud", "quiet"))

    assert (loud.status, loud.phrase, loud.text) == (206, "loud", "piece 0,piece 1,the end")
    assert loud.headers["transfer-encoding"] == "chunked"
    assert (quiet.status, quiet.phrase, quiet.text) == (206, "quiet", "the end")
    assert "transfer-encoding" not in quiet.headers


# ---- CORS


@pytest.mark.row("C10")
@pytest.mark.parametrize("door", ["inference", "management", "metrics"])
def test_a_preflight_is_answered(server: Running, door: str) -> None:
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}

    answer = server.ask("/predictions/echo", door=door, method="OPTIONS", headers=asks)

    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["access-control-allow-methods"] == "GET, POST, PUT, OPTIONS"
    assert headers["access-control-allow-headers"] == "X-Custom-Header"


@pytest.mark.row("C10")
@pytest.mark.parametrize("target", ["/ping", "/predictions/echo", "/predictions/nosuch", "/nosuch"])
def test_every_answer_has_the_headers_of_cors(server: Running, target: str) -> None:
    server.wait_for_workers("echo", 1)

    headers = {name.lower(): value for name, value in server.ask(target).headers.items()}

    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["access-control-allow-methods"] == "GET, POST, PUT, OPTIONS"
    assert headers["access-control-allow-headers"] == "X-Custom-Header"


# ---- what may be fetched, what workers see


@pytest.mark.row("C12")
@pytest.mark.parametrize("url", ["http://127.0.0.1:1/other/x.mar", "file:///x.mar", "http://127.0.0.1:1/allowed"])
def test_a_url_that_is_not_allowed_is_not_fetched(server: Running, url: str) -> None:
    answer = server.manage("POST", f"/models?url={url}")

    assert answer.status == 404
    assert answer.json()["message"] == f"Given URL {url} does not match any allowed URL(s)"


@pytest.mark.row("C12")
@pytest.mark.parametrize("url", ["http://127.0.0.1:1/allowed/x.mar", "HTTP://127.0.0.1:1/ALLOWED/x.mar"])
def test_a_url_that_is_allowed_is_fetched(server: Running, url: str) -> None:
    answer = server.manage("POST", f"/models?url={url}")

    assert answer.status == 400
    assert answer.json()["message"] == f"Failed to download archive from: {url}"


@pytest.mark.row("C13")
def test_hidden_variables_are_absent_in_workers(server: Running) -> None:
    server.wait_for_workers("seen", 1)

    seen = server.ask("/predictions/seen").json()

    assert not {"MY_SECRET_KEY", "HIDDEN"} & seen.keys()
    assert (seen["HIDDEN_NOT"], seen["SEEN"]) == ("3", "4")


# ---- metrics and access lines


@pytest.mark.row("L2")
def test_the_exposition(server: Running) -> None:
    server.wait_for_workers("echo", 1)
    server.ask("/predictions/echo")

    told = server.ask("/metrics?name[]=ts_inference_requests_total", door="metrics")

    assert told.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    comments, samples = told.text.splitlines()[:2], told.text.splitlines()[2:]
    assert comments[0].startswith("# HELP ts_inference_requests_total ")
    assert comments[1] == "# TYPE ts_inference_requests_total counter"
    assert samples
    for line in samples:
        name, value = line.rsplit(" ", 1)
        assert name.startswith("ts_inference_requests_total{")
        assert name.endswith(",}")
        assert value == repr(float(value))


@pytest.mark.row("L8")
def test_the_access_line(server: Running) -> None:
    server.wait_for_workers("echo", 1)
    server.ask("/predictions/echo?a=b", b"x")
    server.ask("/predictions/nosuch")
    server.ask("/ping")

    client = r"ACCESS_LOG - /127\.0\.0\.1:\d+"
    server.wait_for_line(rf'{client} "POST /predictions/echo\?a=b HTTP/1\.1" 200 \d+$')
    server.wait_for_line(rf'{client} "GET /predictions/nosuch HTTP/1\.1" 404 \d+$')
    server.wait_for_line(rf'{client} "GET /ping HTTP/1\.1" 200 \d+$')


# ---- addresses


class UnixConnection(http.client.HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


@pytest.mark.row("C8")
def test_unix_sockets_and_one_port_for_two_doors(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    doors = ("inference", "management", "metrics")
    paths = {door: house.folder / f"{door}.sock" for door in doors}
    house.start("echo.mar", settings={f"{door}_address": f"unix:{path}" for door, path in paths.items()})

    targets = {"inference": "/ping", "management": "/models", "metrics": "/metrics"}
    for door, target in targets.items():
        connection = UnixConnection(paths[door])
        connection.request("GET", target)
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.row("C8")
def test_one_port_for_all_doors(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    shared, metrics = free_ports(2)
    # The original cannot open the third door on the port of the others.
    ports = {"inference": shared, "management": shared, "metrics": metrics if product.is_genuine else shared}
    addresses = {f"{door}_address": f"http://127.0.0.1:{port}" for door, port in ports.items()}
    server = house.start("echo.mar", settings=addresses)
    server.doors.update(ports)
    server.wait_for_workers("echo", 1)

    assert server.ask("/predictions/echo").text == "said"
    assert server.ask("/metrics", door="metrics").status == 200
    # The original takes it for a prediction's path.
    assert server.manage("GET", "/models/echo/1.0").status == (404 if product.is_genuine else 200)


@pytest.mark.row("C8")
def test_a_port_that_inference_and_management_share_has_the_metrics_too(house: House) -> None:
    shared, metrics = free_ports(2)
    ports = {"inference": shared, "management": shared, "metrics": metrics}
    addresses = {f"{door}_address": f"http://127.0.0.1:{port}" for door, port in ports.items()}
    server = house.start(settings=addresses)
    server.doors.update(ports)

    for door in ("inference", "metrics"):
        assert server.ask("/metrics", door=door).status == 200
    assert server.ask("/ping", door="metrics").status == 404


@pytest.mark.row("E29")
def test_the_length_of_the_body_is_among_the_headers_however_it_came(house: House) -> None:
    house.archive("headers", HEADERS)
    server = house.start("headers.mar")
    server.wait_for_workers("headers", 1)
    post = b"POST /predictions/headers HTTP/1.1\r\nHost: x\r\n"
    asked = (
        b"GET /predictions/headers HTTP/1.1\r\nHost: x\r\n\r\n",
        post + b"Content-Length: 3\r\n\r\nabc",
        post + b"Transfer-Encoding: chunked\r\nX-After: 1\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
    )
    found = []
    with socket.create_connection(("127.0.0.1", server.doors["inference"]), timeout=PATIENCE) as client:
        for request in asked:
            client.sendall(request)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            found.append(json.loads(answer.read()))

    assert found == [
        {"Host": "x", "content-length": "0"},
        {"Host": "x", "Content-Length": "3"},
        {"Host": "x", "X-After": "1", "content-length": "5"},
    ]


# ---- TLS


@pytest.fixture(scope="module")
def pem() -> bytes:
    """A key and its certificate."""
    return self_signed_pem(["127.0.0.1"])


def trusting(pem: bytes) -> ssl.SSLContext:
    """Return the client's side of TLS that trusts one certificate alone."""
    return ssl.create_default_context(cadata=pem[pem.index(b"-----BEGIN CERTIFICATE") :].decode())


def ask_securely(port: int, target: str, context: ssl.SSLContext) -> tuple[int, bytes]:
    """Ask over https; return status and body."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def write_pem(house: House, pem: bytes) -> dict[str, str]:
    """Write key and certificate; return the settings that name them."""
    at = pem.index(b"-----BEGIN CERTIFICATE")
    key, certificate = house.folder / "key.pem", house.folder / "certificate.pem"
    key.write_bytes(pem[:at])
    certificate.write_bytes(pem[at:])
    return {"private_key_file": str(key), "certificate_file": str(certificate)}


@pytest.mark.row("C11")
def test_pem_files_for_one_door_and_plain_http_for_another(house: House, pem: bytes) -> None:
    house.archive("echo", ECHO)
    inference, management = free_ports(2)
    addresses = {
        "inference_address": f"https://127.0.0.1:{inference}",
        "management_address": f"http://127.0.0.1:{management}",
    }
    server = house.start("echo.mar", settings={**addresses, **write_pem(house, pem)})
    server.doors.update(inference=inference, management=management)
    server.wait_for_workers("echo", 1)

    assert ask_securely(inference, "/predictions/echo", trusting(pem)) == (200, b"said")

    for method in ("GET", "POST", "DELETE"):  # plain HTTP to the https port
        told = server.ask("/predictions/echo", method=method)
        assert (told.status, told.phrase) == (403, "Forbidden")
        assert told.json() == {"status": "This TorchServe instance only accepts HTTPS requests"}
        standing = {name: value for name, value in told.headers.items() if name not in ("content-length",)}
        assert standing == {
            "content-type": "application/json",
            "Pragma": "no-cache",
            "Cache-Control": "no-cache; no-store, must-revalidate, private",
            "Expires": "Thu, 01 Jan 1970 00:00:00 UTC",
            "connection": "close",
        }
    assert ask_securely(inference, "/ping", trusting(pem))[0] == 200


@pytest.mark.row("C11")
def test_a_keystore(house: House, pem: bytes) -> None:
    house.archive("echo", ECHO)
    path = house.folder / "keystore.p12"
    certificate = load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
    key, secret = load_pem_private_key(pem, None), BestAvailableEncryption(b"changeit")
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"key", key, certificate, None, secret))  # type: ignore[arg-type]
    (management,) = free_ports(1)
    secured = {"management_address": f"https://127.0.0.1:{management}", "keystore": str(path)}
    house.start("echo.mar", settings=secured)

    status, body = ask_securely(management, "/models", trusting(pem))
    assert (status, json.loads(body)["models"][0]["modelName"]) == (200, "echo")


@pytest.mark.row("C11")
def test_a_self_signed_certificate(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    (inference,) = free_ports(1)
    server = house.launch("echo.mar", settings={"inference_address": f"https://127.0.0.1:{inference}"})
    if product.is_genuine:  # it makes one, where Java is older than 16 or has a library beside it
        server.wait_for_line("Model server started.|SelfSignedCertificate")
        return
    server.wait_for_line("Model server started.")
    unseen = ssl.create_default_context()
    unseen.check_hostname, unseen.verify_mode = False, ssl.CERT_NONE
    assert ask_securely(inference, "/ping", unseen)[0] == 200
