"""What settings must be to each other: pairs that contradict, and values that cannot take effect."""

from collections.abc import Callable, Iterator, Set
from typing import Literal

from marserve.config.kinds import ALL, ModelChoice
from marserve.config.settings import Settings

#: A sentence, and how bad it is: no server can run with it, a setting has no effect, or it is worth knowing.
Conflict = tuple[str, Literal["wrong", "ineffective", "risky"]]


def find_conflicts(settings: Settings, given: Set[str]) -> list[Conflict]:
    """Return what is wrong among the settings; ``given`` names those that somebody chose."""
    return [conflict for check in _CHECKS for conflict in check(settings, given)]


def _tls(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    certificate, key, keystore = settings.certificate_file, settings.private_key_file, settings.keystore
    secure = [str(address) for address, _ in settings.listeners() if address.is_tls]
    if bool(certificate) != bool(key):
        yield "certificate_file and private_key_file go together; one is missing.", "wrong"
    elif certificate and keystore:
        yield "certificate_file and private_key_file have no effect: keystore is set, and stronger.", "ineffective"
    elif (certificate or keystore) and not secure:
        key_of_it = "keystore" if keystore else "certificate_file"
        yield f"{key_of_it} has no effect: no address begins with https://.", "ineffective"
    elif secure and not (certificate or keystore):
        yield from _no_certificate(secure[0], settings.dialect)
    for setting in ("keystore_pass", "keystore_type"):
        if setting in given and not keystore:
            yield f"{setting} has no effect: keystore is not set.", "ineffective"


def _no_certificate(address: str, dialect: str) -> Iterator[Conflict]:
    if dialect == "native":
        yield f"{address} needs certificate_file and private_key_file, both PEM, or a keystore.", "wrong"
    else:
        yield (
            f"{address} has neither certificate_file and private_key_file nor a keystore: it gets a self-signed "
            "certificate, another one at each start, which no client trusts by itself.",
            "risky",
        )


def _addresses(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    places: dict[tuple[str, int], str] = {}
    for address, doors in settings.listeners():
        if address.scheme == "unix" or address.port == 0:
            continue
        other = places.setdefault((address.host, address.port), doors[0])
        if other != doors[0]:
            place = f"{address.host}:{address.port}"
            yield f"{other}_address and {doors[0]}_address are both {place}, one of them with TLS.", "wrong"
    if "metrics_address" in given and not settings.enable_metrics_api:
        yield "metrics_address has no effect: enable_metrics_api is false.", "ineffective"


def _exposure(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    for address, doors in settings.listeners():
        if "management" in doors and not address.is_local and not settings.is_locked(address):
            yield (
                f"management_address {address} can be reached from other machines, and nobody is asked for a token: "
                "who reaches it can run code here. Keep it behind a firewall, or on 127.0.0.1.",
                "risky",
            )


def _tokens(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    if settings.disable_token_authorization and "token_authorization" in given:
        yield "token_authorization has no effect: disable_token_authorization is true, and stronger.", "ineffective"
    if settings.token_authorization != "off" and not settings.disable_token_authorization:
        return
    for key in ("token_expiration_min", "key_file"):
        if key in given:
            yield f"{key} has no effect: tokens are off.", "ineffective"


def _cors(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    for key in ("cors_allowed_origin", "cors_allowed_methods", "cors_allowed_headers"):
        unfit = [letter for letter in getattr(settings, key) if not (letter.isascii() and letter.isprintable())]
        if unfit:
            yield f"{key} holds {unfit[0]!a}, which no header can carry.", "wrong"
    if settings.cors_allowed_origin:
        return
    for key in ("cors_allowed_methods", "cors_allowed_headers"):
        if getattr(settings, key):
            yield f"{key} has no effect: cors_allowed_origin is not set.", "ineffective"


def _timeouts(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    longest, response = settings.job_timeout, settings.default_response_timeout
    if "default_response_timeout" in given and 0 < longest < response:
        yield (
            f"default_response_timeout ({response:g} s) never passes: job_timeout ends a request after "
            f"{longest:g} s. Raise job_timeout too.",
            "ineffective",
        )


def _models(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    for model in settings.load_models:
        if not model.location:
            yield f"load_models has no location after {model.name}=.", "ineffective"
    alls = [model.location for model in settings.load_models if not model.name and model.location.lower() == ALL]
    if alls and settings.load_models != (ModelChoice("", ALL),):
        yield f"load_models names models beside {alls[0]}, which is every archive of the store alone.", "ineffective"
    local = [model.location for model in settings.load_models if model.location and "://" not in model.location]
    if local and not settings.model_store:
        yield f"load_models names {local[0]}, and there is no model_store to find it in.", "ineffective"
    twice = [model for model in settings.load_models if "=" in model.location and "://" not in model.location]
    if twice and settings.dialect == "native":
        name, location = twice[0]
        yield f"load_models has {name}={location}, with two =. Write NAME=LOCATION.", "wrong"
    if settings.load_models and settings.model_snapshot is not None:
        yield "load_models (--models) has no effect: model_snapshot is set, and stronger.", "ineffective"
    for key in ("models", "model_snapshot"):
        for entry in getattr(settings, key) or ():
            for member in entry.unknown:
                yield f"{key} has {member} for {entry.model} {entry.version}, which means nothing.", "ineffective"
    if settings.snapshots and settings.log_location is None:
        yield "snapshots has no effect: log_location names no folder to write them to.", "ineffective"


def _metrics(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    if settings.dialect != "torchserve":
        return
    for key in ("metric_time_interval", "system_metrics_cmd"):
        if settings.disable_system_metrics and key in given:
            yield f"{key} has no effect: disable_system_metrics is true.", "ineffective"
    if settings.metrics_mode == "prometheus" and not settings.enable_metrics_api:
        yield "metrics_mode is prometheus and enable_metrics_api is false: nobody sees the metrics.", "ineffective"
    if settings.metrics_mode == "prometheus" and "metrics_location" in given:
        yield "metrics_location has no effect: metrics_mode is prometheus.", "ineffective"


def _workers(settings: Settings, given: Set[str]) -> Iterator[Conflict]:
    if settings.cpu_launcher_args and not settings.cpu_launcher_enable:
        yield "cpu_launcher_args has no effect: cpu_launcher_enable is not set.", "ineffective"


_CHECKS: tuple[Callable[[Settings, Set[str]], Iterator[Conflict]], ...] = (
    _tls,
    _addresses,
    _exposure,
    _tokens,
    _cors,
    _timeouts,
    _models,
    _workers,
    _metrics,
)
