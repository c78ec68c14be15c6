"""Every contender as a row: packages with their versions, how it is started and scaled, which axes it takes."""

from __future__ import annotations

from dataclasses import dataclass

from bench.services.build import ROOT

#: Environments of peers, one a folder; TorchServe's is shared with ``make contract-genuine``.
PLACE = ROOT / ".venv-peers"
TORCHSERVE_PLACE = ROOT / ".venv-torchserve"

#: What the in-process floors share.
_ASGI = ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "orjson==3.13.0")


@dataclass(frozen=True)
class Peer:
    """Something that answers for a workload.

    Attributes:
        key: its name in results.
        title: its name in tables.
        launcher: a name of ``commands.LAUNCHERS``, or ``loop``.
        environment: folder below ``PLACE``; empty for marserve's own.
        packages: what is installed there, pinned; the first is the one whose version is told.
        module: for launchers of a Python program, the module of ``bench.peers``.
        envelope: a name of ``asking.ENVELOPES``: what goes around a JSON body and its answer.
        scaling: how workers are added while it runs: ``management``, ``signal``, or empty where a restart is needed.
        takes_bytes: whether a body of bytes reaches the service as it is, and an answer of bytes the client.
        runs_services: False for the null server.
        start: seconds that it usually takes to the first answer; the plan's length is reckoned with it.
        needs: a program that must be installed beside it.
    """

    key: str
    title: str
    launcher: str
    environment: str = ""
    packages: tuple[str, ...] = ()
    module: str = ""
    envelope: str = ""
    scaling: str = ""
    takes_bytes: bool = True
    runs_services: bool = True
    start: float = 1.0
    needs: str = ""

    @property
    def batches(self) -> bool:
        """Whether it puts requests together."""
        return self.launcher not in ("uvicorn", "gunicorn", LOOP) and self.runs_services


OURS = "marserve"
#: The launcher of what is no server: bare loops of the service, the ceiling.
LOOP = "loop"

PEERS = {
    peer.key: peer
    for peer in (
        Peer(OURS, "marserve", "marserve", scaling="management"),
        Peer(
            "torchserve",
            "TorchServe",
            "torchserve",
            "torchserve",
            # The whole list is that of scripts/contract_genuine.py, which installs it.
            ("torchserve==0.12.0",),
            scaling="management",
            start=4.0,
            needs="java",
        ),
        Peer(
            "multi-model-server",
            "Multi Model Server",
            "mms",
            "multi-model-server",
            ("multi-model-server==1.1.11", "psutil==7.2.2", "pillow==13.0.0", "future==1.0.0"),
            scaling="management",
            start=2.5,
            needs="java",
        ),
        Peer("mosec", "mosec", "program", "mosec", ("mosec==0.9.8",), "mosec_app"),
        Peer(
            "litserve",
            "LitServe",
            "program",
            "litserve",
            ("litserve==0.2.19",),
            "litserve_app",
            takes_bytes=False,
            start=2.5,
        ),
        Peer(
            "bentoml",
            "BentoML",
            "bentoml",
            "bentoml",
            ("bentoml==1.4.39",),
            "bentoml_app",
            envelope="items",
            takes_bytes=False,
            start=2.5,
        ),
        Peer("ray", "Ray Serve", "program", "ray", ("ray[serve]==2.60.0",), "ray_app", start=10.0),
        Peer(
            "mlserver",
            "MLServer",
            "program",
            "mlserver",
            # Its workers ask for an event loop in a way that later versions of uvloop refuse.
            ("mlserver==1.7.1", "uvloop==0.21.0"),
            "mlserver_app",
            envelope="tensor",
            takes_bytes=False,
            start=4.5,
        ),
        Peer("fastapi", "FastAPI, in-process", "uvicorn", "asgi", ("fastapi==0.165.0", *_ASGI), "fastapi_app"),
        Peer(
            "flask",
            "Flask on gunicorn, in-process",
            "gunicorn",
            "flask",
            ("flask==3.1.3", "gunicorn==27.0.1", "orjson==3.13.0"),
            "flask_app",
            scaling="signal",
        ),
        Peer("asgi", "bare ASGI function, in-process", "uvicorn", "asgi", ("fastapi==0.165.0", *_ASGI), "asgi_app"),
        Peer(
            "null",
            "null server, no service",
            "program",
            "asgi",
            ("fastapi==0.165.0", *_ASGI),
            "null_app",
            runs_services=False,
        ),
        Peer("loops", "bare loops, no server", LOOP, module="loop_app", takes_bytes=False),
    )
}
