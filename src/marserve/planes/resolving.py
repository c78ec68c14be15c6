"""How a version is served: what the registration, the archive's model-config and the settings say, made one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from marserve.config.versions import VersionEntry
from marserve.errors import BadRequest
from marserve.models.model import OpenedArchive, VersionConfig
from marserve.models.routes import KEY, routes_of
from marserve.planes.parallel import parallel_of
from marserve.wire.frames import MOST_JOBS

log = logging.getLogger("marserve.management")

#: Shortest timeout that a model-config may ask for, seconds: 0 would end every worker in its first batch.
LEAST_TIMEOUT = 0.001

#: Runtimes of the old servers that no worker of ours can be.
FOREIGN_RUNTIMES = frozenset(("LSP", "python2"))
#: Keys of a model-config that TorchServe's users know and that change nothing here, with the reason.
INEFFECTIVE = {
    "sequenceBatching": "requests are not kept in sequences",
    "sequenceMaxIdleMSec": "requests are not kept in sequences",
    "continuousBatching": "a batch stays as it is until it is answered",
}


@dataclass(frozen=True, slots=True)
class Precedence:
    """What of an archive's model-config is stronger than the registration, all else is weaker; and how it is read.

    Attributes:
        archive_sets_workers: ``minWorkers`` and ``maxWorkers``, which then count together or not at all.
        registration_sets_workers: what the setting ``models`` says of workers counts at start alone.
        archive_sets_timeouts: ``responseTimeout`` and ``startupTimeout``, those of the setting ``models`` too.
        takes_odd_numbers: a ``maxBatchDelay`` of 0 stands for the default, and a batch size above the most for that.
        has_routes: ``routes`` count, which neither old server knew.
    """

    archive_sets_workers: bool = False
    registration_sets_workers: bool = False
    archive_sets_timeouts: bool = False
    takes_odd_numbers: bool = False
    has_routes: bool = True


REGISTRATION_FIRST = Precedence()
#: How workers begin, by what a registration says; "": what the archive or the settings say.
_START = {None: "", True: "fork", False: "spawn"}


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody who registers a model asks for; None: what the archive or the settings say.

    Attributes:
        location: a name in the model store, or a URL.
        max_batch_delay, response_timeout, startup_timeout: seconds.
        is_preloaded: whether its workers are forked from a process that has loaded it.
        is_signed: whether its download is signed for S3.
        entry: what a snapshot says of it, which wins over everything else.
    """

    location: str
    model_name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    batch_size: int | None = None
    max_batch_delay: float | None = None
    initial_workers: int | None = None
    response_timeout: float | None = None
    startup_timeout: float | None = None
    is_preloaded: bool | None = None
    is_signed: bool = False
    entry: VersionEntry | None = None


def resolve(
    defaults: VersionConfig,
    archive: OpenedArchive,
    wanted: Registration,
    precedence: Precedence = REGISTRATION_FIRST,
    told: VersionEntry | None = None,
) -> VersionConfig:
    """Return how a version is served: the registration wins, then the archive's model-config, then the settings.

    Args:
        precedence: where the archive wins over the registration.
        told: what the setting ``models`` says of this version; stronger than ``defaults``.
    """
    config = archive.config
    if told is not None:
        defaults = _overridden(defaults, told)
        if precedence.archive_sets_timeouts:
            wanted = replace(
                wanted,
                response_timeout=told.response_timeout or wanted.response_timeout,
                startup_timeout=told.startup_timeout or wanted.startup_timeout,
            )
    workers, most = _workers(config, wanted, defaults, precedence, (told and told.max_workers) or 0)
    delay = wanted.max_batch_delay
    if delay is None:
        delay = _delay(config, defaults.max_batch_delay * 1000.0, precedence) / 1000.0
    runtime = wanted.runtime or (told.runtime if told else "") or archive.manifest.runtime
    if runtime in FOREIGN_RUNTIMES:
        raise BadRequest(f"Workers of the runtime {runtime} cannot be started.", "Pack the archive for python3.")
    for key, why in ineffective(archive, precedence):
        log.warning("%s: %s has no effect: %s.", archive.location, key, why)
    asked_size = wanted.batch_size or _whole(config, "batchSize", defaults.batch_size, least=1)
    batch_size = min(asked_size, MOST_JOBS)
    if asked_size > MOST_JOBS:
        if not precedence.takes_odd_numbers:
            raise BadRequest(f"A batch size of {asked_size} is too large.", f"The most is {MOST_JOBS}.")
        log.warning(
            "%s: a batch size of %d is too large; the most, %d, counts.", archive.location, asked_size, MOST_JOBS
        )
    queue_size = _whole(config, "jobQueueSize", defaults.queue_size, least=1)
    if queue_size < batch_size:
        log.warning(
            "%s: its queue of %d never fills a batch of %d; raise job_queue_size.",
            archive.location,
            queue_size,
            batch_size,
        )
    return replace(
        defaults,
        min_workers=workers,
        max_workers=most,
        batch_size=batch_size,
        max_batch_delay=delay,
        response_timeout=_timeout(
            config, "responseTimeout", wanted.response_timeout or None, defaults.response_timeout, precedence
        ),
        startup_timeout=_timeout(
            config, "startupTimeout", wanted.startup_timeout, defaults.startup_timeout, precedence
        ),
        retry_timeout=_number(config, "maxRetryTimeoutInSec", defaults.retry_timeout),
        client_timeout=_number(config, "clientTimeoutInMills", 0) / 1000.0,
        has_job_tickets=_flag(config, "useJobTicket"),
        queue_size=queue_size,
        handler=wanted.handler or archive.manifest.handler or defaults.handler,
        runtime=runtime,
        gpu_ids=_devices(config, defaults.gpu_ids),
        parallel=parallel_of(config, archive.location),
        worker_start=_START[wanted.is_preloaded] or _start(config, defaults.worker_start),
        routes=routes_of(config) if precedence.has_routes else (),
    )


def _workers(
    config: Mapping[str, object], wanted: Registration, defaults: VersionConfig, precedence: Precedence, most: int
) -> tuple[int, int]:
    """Return least and most workers; ``most`` counts where the model-config has none, 0 for none."""
    asked = wanted.initial_workers
    if not precedence.archive_sets_workers:
        workers = _whole(config, "minWorkers", defaults.min_workers) if asked is None else asked
        return workers, max(workers, _whole(config, "maxWorkers", most or workers))
    given, highest = config.get("minWorkers"), _whole(config, "maxWorkers", 0)
    # To TorchServe, 1 is the least that can be asked for, and nothing at all is less.
    least = max(1, given) if type(given) is int else _whole(config, "minWorkers", 0)
    if least == 1 != given:
        log.warning("model-config.yaml: minWorkers is %r; 1 counts.", given)
    if 0 < least <= highest:
        return least, highest
    if least or highest:
        log.warning(
            "model-config.yaml: minWorkers %d and maxWorkers %d have no effect: they count together, from 1 on, and "
            "the second may not be less than the first.",
            least,
            highest,
        )
    workers = defaults.min_workers if asked is None else asked
    return workers, max(workers, most)


def _delay(config: Mapping[str, object], default: float, precedence: Precedence) -> float:
    """Return the delay of a batch, milliseconds."""
    delay = _number(config, "maxBatchDelay", default)
    if delay or not precedence.takes_odd_numbers or not default:
        return delay
    log.warning("model-config.yaml: maxBatchDelay is 0, which stands for the default; %g counts.", default)
    return default


def _timeout(
    config: Mapping[str, object], key: str, asked: float | None, default: float, precedence: Precedence
) -> float:
    if asked is None:
        return _number(config, key, default, LEAST_TIMEOUT)
    return _number(config, key, asked, LEAST_TIMEOUT) if precedence.archive_sets_timeouts else asked


def _devices(config: Mapping[str, object], known: tuple[int, ...]) -> tuple[int, ...]:
    """Return the GPUs that workers are given in turn; () for the CPU."""
    kind, asked = config.get("deviceType"), config.get("deviceIds")
    if isinstance(kind, str):
        kind = kind.lower()  # as TorchServe reads it
    if kind not in (None, "cpu", "gpu"):
        log.warning("model-config.yaml: deviceType is %r, which is neither cpu nor gpu; it does not count.", kind)
    if kind == "cpu" or asked is None:
        return () if kind == "cpu" else known
    if not isinstance(asked, list) or not all(type(one) is int for one in asked):
        log.warning(
            "model-config.yaml: deviceIds is %r, which is no list of whole numbers; it does not count.", asked
        )
        return known
    missing = [one for one in asked if one not in known]
    if missing:
        here = ", ".join(map(str, known)) or "none"
        log.warning(
            "model-config.yaml: deviceIds %s does not count: there is no GPU %d here (there are: %s).",
            asked,
            missing[0],
            here,
        )
        return known
    return tuple(asked) or known


def restored(config: VersionConfig, entry: VersionEntry) -> VersionConfig:
    """Return how a version of a snapshot is served: as it was, whatever its archive says by now."""
    return _overridden(config, entry)


def _overridden(config: VersionConfig, entry: VersionEntry) -> VersionConfig:
    names = ("min_workers", "max_workers", "batch_size", "max_batch_delay", "response_timeout", "startup_timeout")
    told = {name: getattr(entry, name) for name in names}
    found = replace(config, **{name: value for name, value in told.items() if value is not None})
    most = max(found.min_workers, found.max_workers)
    return replace(found, max_workers=most, batch_size=min(found.batch_size, MOST_JOBS))


def ineffective(archive: OpenedArchive, precedence: Precedence) -> list[tuple[str, str]]:
    """Return what an archive asks for in vain, with the reason: silence is what users resent most."""
    found = [(key, why) for key, why in INEFFECTIVE.items() if archive.config.get(key)]
    if KEY in archive.config and not precedence.has_routes:
        found.append((KEY, "only marserve's own dialect has routes of archives"))
    if archive.manifest.requirements_file and not archive.python:
        found.append(("the requirements file", "install_py_dep_per_model is off"))
    return found


def _start(config: Mapping[str, object], default: str) -> str:
    """Return how workers begin; what is none of the ways is told about, and the default counts."""
    value = config.get("workerStart", default)
    if value not in ("fork", "spawn"):
        log.warning(
            "model-config.yaml: workerStart is %r, which is neither fork nor spawn; %s counts.", value, default
        )
        return default
    return str(value)


def _flag(config: Mapping[str, object], key: str) -> bool:
    """Return a flag of a model-config; what is neither true nor false is told about, and false counts."""
    value = config.get(key)
    if not (value is None or isinstance(value, bool)):
        log.warning("model-config.yaml: %s is %r, which is neither true nor false; false counts.", key, value)
    return value is True


def _whole(config: object, key: str, default: int, least: int = 0) -> int:
    return int(_number(config, key, default, least, is_whole=True))


def _number(config: object, key: str, default: float, least: float = 0, is_whole: bool = False) -> float:
    """Return a number of a model-config; what is no such number is told about, and the default counts."""
    value = config.get(key) if isinstance(config, dict) else None
    if value is None:
        return default
    is_number = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not value >= least:  # also when it is no number by its own account: .nan
        what = "whole number" if is_whole else "number"
        log.warning(
            "model-config.yaml: %s is %r, which is no %s from %g on; %g counts.", key, value, what, least, default
        )
        return default
    return float(value)
