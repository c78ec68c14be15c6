"""What a model-config says about workers of several processes: ``parallelType``, ``parallelLevel``, ``torchrun``."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from marserve.supervisor.parallel import RANKED, Parallel

log = logging.getLogger("marserve.management")

KINDS = (*sorted(RANKED), "custom")
#: Whole numbers that ``torchrun`` takes, with the least of each.
_NUMBERS = {"nnodes": 1, "nproc-per-node": 1, "monitor-interval": 1, "node-rank": 0, "OMP_NUMBER_THREADS": 1}
_TEXTS = ("rdzv-backend", "rdzv-endpoint", "rdzv-conf")


def parallel_of(config: Mapping[str, object], location: str) -> Parallel:
    """Return how the work of a model's workers is spread; what has no effect is told about.

    Args:
        config: the whole model-config.yaml.
        location: the archive, for the log.
    """
    kind = config.get("parallelType") or ""
    if isinstance(kind, str):
        kind = kind.lower()  # as TorchServe reads it
    section = config.get("torchrun")
    if section is not None and not isinstance(section, dict):
        log.warning("%s: torchrun is %r, which holds no options.", location, section)
        section = None
    options = _options(section or {}, location)
    level = options.get("nproc-per-node") or (_number(config.get("parallelLevel"), 0) or 0 if section is None else 1)
    if kind and kind not in KINDS:
        log.warning("%s: parallelType is %r; it is one of %s. It has no effect.", location, kind, ", ".join(KINDS))
        kind = ""
    if not kind:
        for key in ("parallelLevel", "torchrun"):
            if config.get(key):
                log.warning("%s: %s has no effect without a parallelType.", location, key)
        return Parallel()
    if not level:
        log.warning("%s: parallelType has no effect without parallelLevel or torchrun.", location)
        return Parallel()
    if kind == "custom" and section is not None:
        log.warning("%s: of torchrun only nproc-per-node counts: a custom service starts its processes.", location)
    threads = options.pop("OMP_NUMBER_THREADS", 1)
    told = {key.replace("-", "_"): str(value) for key, value in options.items() if key != "nproc-per-node"}
    return Parallel(str(kind), int(level), told, int(threads))


def _options(section: Mapping[str, object], location: str) -> dict[str, int | str]:
    """Return the good ones of torchrun's options as they are written; the others are told about."""
    found: dict[str, int | str] = {}
    for key, value in section.items():
        if key not in _NUMBERS and key not in _TEXTS:
            log.warning("%s: torchrun has no option %s here.", location, key)
            continue
        good = _number(value, _NUMBERS[key]) if key in _NUMBERS else _text(value)
        if good is None:
            log.warning("%s: torchrun's %s cannot be %r; its default counts.", location, key, value)
        else:
            found[key] = good
    return found


def _number(value: object, least: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= least else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
