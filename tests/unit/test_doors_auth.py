"""Keys: what fits, what expires, what is renewed; the key file; and what the doors make of them."""

import json
import stat
from pathlib import Path

import pytest
from http_fakes import FakeLoop, FakeTransport, post
from served_fakes import Served

from marserve.doors.auth import API, INFERENCE, MANAGEMENT, KeyFile, Keys, authorization_in, read_keys
from marserve.doors.http.application import HttpApplication
from marserve.doors.http.asgi import AsgiBridge
from marserve.doors.http.connection import Connection
from marserve.doors.http.dialects import DIALECTS
from marserve.doors.http.heads import Heads
from marserve.doors.http.inference import InferenceDoor
from marserve.doors.http.lane import Limits
from marserve.errors import ConfigError
from marserve.metrics.collector import Collector
from marserve.models.registry import Registry
from marserve.planes.inference import InferencePlane

KINDS = (INFERENCE, MANAGEMENT, API)
FAILED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
NOT_RENEWED = FAILED.replace("Authorization", "Authentication")


class Clock:
    """Unix time that moves when told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def saved() -> list[str]:
    """The texts that were saved as key file."""
    return []


@pytest.fixture
def keys(clock: Clock, saved: list[str]) -> Keys:
    return Keys(60.0, saved.append, clock)


def bearer(keys: Keys, kind: str) -> str:
    return f"Bearer {keys[kind].text}"


# --- what fits -----------------------------------------------------------------------------------------


def test_a_key_fits_its_own_kind_alone(keys: Keys) -> None:
    for kind in KINDS:
        assert [other for other in KINDS if keys.fits(other, keys[kind].header)] == [kind]


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        (b"Bearer %b", True),
        (b"Bearer   %b", True),
        (b"Bearer\t%b", True),
        (b"bearer %b", False),
        (b"Basic %b", False),
        (b"%b", False),
        (b"Bearer%b", False),
        (b"Bearer %b x", False),
        (b"Bearer %bx", False),
        (b"Bearer ", False),
        (b"", False),
        (b"Bearer \xff\xfe", False),
    ],
)
def test_the_header_is_read_as_torchserve_reads_it(keys: Keys, form: bytes, fits: bool) -> None:
    value = form.replace(b"%b", keys[INFERENCE].text.encode())
    assert keys.fits(INFERENCE, value) is fits


def test_keys_are_eight_characters_and_never_the_same(clock: Clock, saved: list[str]) -> None:
    texts = {Keys(60.0, saved.append, clock)[kind].text for kind in KINDS for _ in range(20)}
    assert len(texts) == 60
    assert {len(text) for text in texts} == {8}


def test_all_but_the_api_key_expire(keys: Keys, clock: Clock) -> None:
    clock.now += 59.9
    assert all(keys.fits(kind, keys[kind].header) for kind in KINDS)
    clock.now += 0.1
    assert [kind for kind in KINDS if keys.fits(kind, keys[kind].header)] == [API]


def test_a_lifetime_without_end_can_still_be_told(saved: list[str], clock: Clock) -> None:
    Keys(1e300, saved.append, clock).publish()
    assert json.loads(saved[0])["inference"]["expiration time"].startswith("9999-12-31T23:59:59")


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([b"Host", b"x", b"Authorization", b"Bearer a"], b"Bearer a"),
        ([b"AUTHORIZATION", b"Bearer a", b"authorization", b"Bearer b"], b"Bearer a"),
        ([b"X", b"Authorization", b"Y", b"Bearer a"], b""),
        ([b"Content-Length", b"3"], b""),
        ([], b""),
    ],
)
def test_the_first_header_of_the_name_counts(headers: list[bytes], value: bytes) -> None:
    assert authorization_in(headers) == value


def test_a_refusal_says_what_is_wrong(keys: Keys, clock: Clock) -> None:
    def told(kind: str, value: bytes) -> tuple[str, str]:
        error = keys.refusal((kind,), value)
        return error.message, error.fault

    assert told(INFERENCE, b"") == ("This needs a key, and the request carries none.", "")
    assert told(INFERENCE, b"Bearer no") == ("The key is wrong, or it has been renewed since.", "")
    assert told(INFERENCE, keys[MANAGEMENT].header)[1] == "wrong_kind"
    assert "the request carries the management key" in told(INFERENCE, keys[MANAGEMENT].header)[0]
    assert told(API, b"")[1] == "renewal"
    assert told(API, keys[MANAGEMENT].header)[1] == "renewal_wrong_kind"
    clock.now += 100
    assert told(INFERENCE, keys[INFERENCE].header) == ("The inference key has expired.", "")
    assert all(key.text not in told(INFERENCE, key.header)[0] for key in map(keys.__getitem__, KINDS))


# --- renewal and the file ------------------------------------------------------------------------------


def test_a_renewed_key_takes_the_place_of_the_old_one(keys: Keys, clock: Clock, saved: list[str]) -> None:
    old = {kind: keys[kind] for kind in KINDS}
    clock.now += 100

    expires = keys.renew(INFERENCE)

    assert expires == clock.now + 60
    assert not keys.fits(INFERENCE, old[INFERENCE].header)
    assert keys.fits(INFERENCE, keys[INFERENCE].header)
    assert (keys[MANAGEMENT], keys[API]) == (old[MANAGEMENT], old[API])
    assert json.loads(saved[-1])["inference"]["key"] == keys[INFERENCE].text


def test_a_key_that_cannot_be_saved_does_not_take_the_place_of_the_old_one(clock: Clock) -> None:
    def fail(text: str) -> None:
        raise ConfigError("The disk is full.")

    keys = Keys(60.0, fail, clock)
    old = keys[INFERENCE]
    with pytest.raises(ConfigError):
        keys.renew(INFERENCE)
    assert keys[INFERENCE] == old


def test_the_file_has_torchserves_members_in_its_form(keys: Keys, saved: list[str]) -> None:
    keys.publish()
    assert saved == [
        f'{{\n  "management": {{\n    "key": "{keys[MANAGEMENT].text}",\n'
        '    "expiration time": "2023-11-14T22:14:20.000000Z"\n  },\n'
        f'  "inference": {{\n    "key": "{keys[INFERENCE].text}",\n'
        '    "expiration time": "2023-11-14T22:14:20.000000Z"\n  },\n'
        f'  "API": {{\n    "key": "{keys[API].text}"\n  }}\n}}'
    ]


def test_the_file_is_its_owners_alone_and_replaced_whole(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "key_file.json"
    path.write_text("left behind")
    path.chmod(0o644)
    keys = Keys(60.0, KeyFile(path).write, clock)
    keys.publish()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(path) == {kind: keys[kind].text for kind in KINDS}
    assert [entry.name for entry in tmp_path.iterdir()] == ["key_file.json"]


def test_only_the_file_that_was_written_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    file = KeyFile(path)
    path.write_text("another server's")
    file.remove()
    assert path.exists(), "nothing was written yet"
    file.write("mine")
    path.write_text("another server's")
    file.remove()
    assert path.exists()
    path.write_text("mine")
    file.remove()
    assert not path.exists()
    file.remove()


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing/k cannot be written: no such file or directory\. Set key_file"):
        KeyFile(tmp_path / "missing" / "k").write("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder cannot be written: is a directory"):
        KeyFile(tmp_path / "folder").write("x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"inference": 1}', '{"inference": {}}'])
def test_a_file_without_keys_has_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "k").write_text(text)
    assert read_keys(tmp_path / "k") == {}


# --- the doors -----------------------------------------------------------------------------------------


def statuses(served: Served, method: str, target: str, keys: Keys) -> dict[str, int]:
    """Return the status for each key that a request may carry, and for none."""
    found = {kind: served.ask(method, target, authorization=bearer(keys, kind)).status for kind in KINDS}
    return {"none": served.ask(method, target).status, **found}


@pytest.mark.parametrize(
    ("method", "target", "right", "status"),
    [
        ("GET", "/models", MANAGEMENT, 200),
        ("PUT", "/models/m", MANAGEMENT, 202),
        ("OPTIONS", "/models/m", MANAGEMENT, 200),
        ("OPTIONS", "/predictions/m", INFERENCE, 200),
        ("POST", "/token?type=inference", API, 200),
    ],
)
def test_natively_each_route_takes_its_own_key(keys: Keys, method: str, target: str, right: str, status: int) -> None:
    served = Served(keys=keys)
    served.add("m")

    found = statuses(served, method, target, keys)

    assert found.pop("none") == 401
    assert found.pop(right) == status
    assert set(found.values()) == {403}
    assert served.ask(method, target).headers["www-authenticate"] == "Bearer"
    # The API key never expires, so renewing what was asked for above changes none of the others.
    assert served.ask(method, target, authorization="Bearer wrong").status == 401


@pytest.mark.parametrize("target", ["/nothing", "/models/m/1/2/3"])
def test_natively_what_is_not_there_is_not_told_without_a_key(keys: Keys, target: str) -> None:
    found = statuses(Served(keys=keys), "GET", target, keys)
    assert found == {"none": 401, INFERENCE: 404, MANAGEMENT: 404, API: 403}


@pytest.mark.parametrize("target", ["/ping", "/", "/api-description", "/metrics"])
def test_natively_probes_descriptions_and_metrics_are_open(keys: Keys, target: str) -> None:
    assert set(statuses(Served(keys=keys), "GET", target, keys).values()) == {200}


def test_natively_open_routes_name_no_model_to_who_has_no_key(keys: Keys) -> None:
    served = Served(keys=keys)
    served.add("secret", workers=0)
    served.registry.models["secret"].default.pool.target = 1
    trusted = {"authorization": bearer(keys, INFERENCE)}

    for target in ("/ping", "/api-description"):
        assert "secret" in served.ask("GET", target, **trusted).body.decode()
        assert "secret" not in served.ask("GET", target).body.decode()


def test_an_address_without_a_lock_asks_for_the_api_key_alone(keys: Keys) -> None:
    served = Served(keys=keys, is_locked=False)
    served.add("m")
    assert served.ask("GET", "/models").status == 200
    assert served.ask("GET", "/nothing").status == 404
    assert served.ask("POST", "/token?type=inference").status == 401
    assert served.ask("POST", "/token?type=inference", authorization=bearer(keys, API)).status == 200


@pytest.mark.parametrize("dialect", DIALECTS)
def test_without_keys_there_is_no_renewal(dialect: str) -> None:
    assert Served(dialect).ask("POST", "/token?type=inference").status == 404


def test_natively_a_renewal_says_until_when_and_never_the_key(keys: Keys) -> None:
    served = Served(keys=keys)
    answer = served.ask("POST", "/token?type=management", authorization=bearer(keys, API))
    assert answer.json == {"status": "The management key was renewed.", "expires": "2023-11-14T22:14:20+00:00"}
    for target in ("/token", "/token?type=API"):
        refused = served.ask("POST", target, authorization=bearer(keys, API))
        assert (refused.status, refused.json["hint"]) == (400, "It must be management or inference.")


@pytest.mark.parametrize(
    ("method", "target", "right"),
    [
        ("GET", "/ping", INFERENCE),
        ("OPTIONS", "/predictions/m", INFERENCE),
        ("GET", "/models", MANAGEMENT),
        ("GET", "/nothing", INFERENCE),
        ("GET", "/", MANAGEMENT),
    ],
)
def test_torchserve_refuses_everything_in_its_own_words(keys: Keys, method: str, target: str, right: str) -> None:
    served = Served("torchserve", keys=keys)
    served.add("m")
    for authorization in ("", "Bearer wrong", bearer(keys, API)):
        answer = served.ask(method, target, authorization=authorization)
        assert answer.json == {"code": 400, "type": "InvalidKeyException", "message": FAILED}
        assert answer.headers["connection"] == "close"
        assert "www-authenticate" not in answer.headers
    assert served.ask(method, target, authorization=bearer(keys, right)).status in (200, 404, 405)


def test_torchserve_leaves_descriptions_and_metrics_open(keys: Keys) -> None:
    served = Served("torchserve", keys=keys)
    opened = [("OPTIONS", "/"), ("GET", "/api-description"), ("POST", "/api-description"), ("GET", "/metrics")]
    assert [served.ask(*request).status for request in opened] == [200] * 4


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_torchserve_renews_with_an_empty_line(keys: Keys, method: str) -> None:
    served = Served("torchserve", keys=keys)
    old = bearer(keys, MANAGEMENT)
    answer = served.ask(method, "/token?type=management&type=inference", authorization=bearer(keys, API))
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"\n", "application/json")
    assert served.ask("GET", "/models", authorization=old).status == 400
    assert served.ask("GET", "/models", authorization=bearer(keys, MANAGEMENT)).status == 200


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/token?type=inference", MANAGEMENT),
        ("/token?type=inference", INFERENCE),
        ("/token", API),
        ("/token?type=x", API),
    ],
)
def test_torchserve_speaks_of_authentication_where_nothing_is_renewed(keys: Keys, target: str, kind: str) -> None:
    answer = Served("torchserve", keys=keys).ask("GET", target, authorization=bearer(keys, kind))
    assert answer.json == {"code": 400, "type": "InvalidKeyException", "message": NOT_RENEWED}


# --- the fast lane -------------------------------------------------------------------------------------


class Caller:
    """A connection to predictions that ask for a key; nothing is served behind it."""

    def __init__(self, dialect: str, keys: Keys | None) -> None:
        plane = InferencePlane(Registry())
        plane.startup = None
        self.collector = Collector()
        door = InferenceDoor(plane, DIALECTS[dialect], self.collector, 100_000, b"", keys)
        application = HttpApplication(None, door, DIALECTS[dialect], self.collector)  # type: ignore[arg-type]
        self.transport = FakeTransport()
        bridge = AsgiBridge(application, 1000)
        self.connection = Connection(
            application, bridge, Limits(), FakeLoop(), Heads(application.lane), lambda _: None, lambda _: None
        )  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def ask(self, *headers: bytes, body: bytes = b"{}") -> tuple[int, bytes]:
        """Return status and whole answer."""
        self.transport.out.clear()
        self.connection.data_received(post(b"/predictions/m", body, *headers))
        answer = bytes(self.transport.out)
        return int(answer.split(b" ")[1]), answer


def test_a_prediction_needs_the_inference_key(keys: Keys, clock: Clock) -> None:
    caller = Caller("native", keys)
    status, answer = caller.ask()
    assert status == 401
    assert b"\r\nwww-authenticate: Bearer\r\n" in answer
    assert b"\r\nx-request-id: " in answer
    assert caller.ask(b"Authorization: Bearer wrong")[0] == 401
    assert caller.ask(b"Authorization: " + keys[MANAGEMENT].header)[0] == 403
    # Let in, it is told that there is no such model: the refusals before left the connection as it was.
    assert caller.ask(b"Authorization: " + keys[INFERENCE].header)[0] == 404
    assert caller.ask(b"authorization: " + keys[INFERENCE].header)[0] == 404
    clock.now += 60
    assert caller.ask(b"Authorization: " + keys[INFERENCE].header)[0] == 401


def test_torchserve_refuses_a_prediction_and_closes(keys: Keys) -> None:
    caller = Caller("torchserve", keys)
    status, answer = caller.ask(body=b"x" * 5000)
    assert status == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"] == FAILED
    assert b"connection: close\r\n" in answer
    assert caller.transport.has_written_eof


def test_without_a_lock_a_header_is_not_looked_at() -> None:
    assert Caller("native", None).ask(b"Authorization: Bearer whatever")[0] == 404
