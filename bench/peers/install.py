"""Makes the environments of the peers, each in the versions of the table; one that cannot be had is told as such."""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from bench.peers.table import PEERS, PLACE, TORCHSERVE_PLACE, Peer
from bench.services.build import ROOT

#: Written last, and holds what is installed: without it, or with another list, an environment is made anew.
MARK = "installed.txt"
#: Seconds that one environment may take.
LONGEST = 900


def place_of(peer: Peer) -> Path | None:
    """Return the environment of a peer, None for marserve, which runs in this one."""
    if peer.launcher == "torchserve":
        return TORCHSERVE_PLACE
    return PLACE / peer.environment if peer.environment else None


def lacking(peer: Peer) -> str:
    """Return why a peer cannot be started, in words; empty when it can."""
    if peer.needs and shutil.which(peer.needs) is None:
        return f"It needs {peer.needs}, which is not on the path."
    place = place_of(peer)
    if place is None:
        return ""
    if peer.launcher == "torchserve":
        return "" if (place / "bin" / "torchserve").exists() else "It is not installed: make bench-peers."
    mark = place / MARK
    wanted = _list_of(peer)
    is_there = mark.is_file() and mark.read_text() == wanted
    return "" if is_there else "It is not installed in the pinned versions: make bench-peers."


def install(peer: Peer) -> str:
    """Make a peer's environment if it is not there; return why that failed, empty when it did not."""
    if not lacking(peer) or (peer.needs and shutil.which(peer.needs) is None):
        return lacking(peer)
    place = place_of(peer)
    assert place is not None
    print(f"Making {place.relative_to(ROOT)} for {peer.title}.", flush=True)
    try:
        if peer.launcher == "torchserve":
            _install_torchserve()
        else:
            _install_from_list(peer, place)
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"It cannot be installed: {said.strip().splitlines()[-1]}"
    return lacking(peer)


def _install_from_list(peer: Peer, place: Path) -> None:
    # Of the interpreter below: an environment's own would be bound to that environment's folder.
    venv.create(place, with_pip=True, clear=True)
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *peer.packages], check=True, capture_output=True, text=True, timeout=LONGEST)
    # numpy, torch and onnxruntime come from our environment, behind the peer's own: the same model libraries for all.
    own = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    Path(own, "models_of_marserve.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (place / MARK).write_text(_list_of(peer))


def _install_torchserve() -> None:
    sys.path.append(str(ROOT / "scripts"))
    originals = importlib.import_module("contract_genuine").ORIGINALS
    next(original for original in originals if original.name == "torchserve").installed()


def _list_of(peer: Peer) -> str:
    return "".join(f"{package}\n" for package in peer.packages)


def versions(peer: Peer) -> str:
    """Return the pinned product of a peer as ``name==version``, empty for marserve."""
    return peer.packages[0] if peer.packages else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Install what is missing and say what could not be had; always 0, since the run goes on without it."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.install", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PEERS), metavar="PEER", help="of " + ", ".join(PEERS))
    told = parser.parse_args(argv)
    for key in told.only or PEERS:
        reason = install(PEERS[key])
        print(f"{PEERS[key].title}: {reason or versions(PEERS[key]) or 'this checkout'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
