"""What a result was measured on and with; a figure without it cannot be compared."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from bench.services.build import ROOT

_PACKAGES = (
    "marserve",
    "uvicorn",
    "fastapi",
    "starlette",
    "uvloop",
    "httptools",
    "orjson",
    "onnxruntime",
    "numpy",
)


def describe_machine() -> dict[str, object]:
    """Return processor, cores, system, versions, commit, and the load that others put on the machine."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "wrk": _wrk_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    return (processor_name(information.read_text()) if information.is_file() else "") or platform.processor()


def processor_name(information: str) -> str:
    """Return the first model name of ``/proc/cpuinfo``, "" when it names none."""
    for line in information.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _wrk_version() -> str | None:
    if not shutil.which("wrk"):
        return None
    # It prints its version and ends with 1.
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout.splitlines()
    return " ".join(said[0].split()[1:3]) if said else None


def _commit() -> str | None:
    """Return the commit, with a plus where files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return found.stdout.strip() or None
