"""What may follow what on a link, as a table; both sides check what they receive against it."""

from typing import Dict, FrozenSet, Tuple

from marserve.errors import RemoteProtocolError
from marserve.wire import frames

SERVER, WORKER = "server", "worker"
#: The process that workers are forked from, and what the server is to it.
PARENT, PARENT_SERVER = "parent", "parent's server"

#: state -> frame kind that may arrive -> next state, for what each side RECEIVES.
#: ``greeted`` is a link whose worker has said hello; ``ready`` is one whose service has loaded.
RECEIVES: Dict[Tuple[str, str], Dict[int, str]] = {
    (SERVER, "open"): {frames.HELLO: "greeted"},
    (SERVER, "greeted"): {frames.LOADED: "ready"},
    (SERVER, "ready"): {frames.ANSWER: "ready"},
    (WORKER, "open"): {frames.WELCOME: "greeted"},
    (WORKER, "greeted"): {frames.LOAD: "ready", frames.STOP: "closed"},
    (WORKER, "ready"): {frames.BATCH: "ready", frames.STOP: "closed"},
    (PARENT_SERVER, "greeted"): {frames.LOADED: "ready"},
    (PARENT_SERVER, "ready"): {frames.FORKED: "ready"},
    (PARENT, "open"): {frames.LOAD: "ready"},
    (PARENT, "ready"): {frames.FORK: "ready", frames.SERVE: "closed"},
}

#: Kinds of later versions: an older peer passes over them in silence.
IGNORED: FrozenSet[int] = frozenset({frames.CANCEL, frames.CREDIT, frames.LOG, frames.METRIC})


def next_state(side: str, state: str, kind: int) -> str:
    """Return the state after ``side`` has received a frame of ``kind``.

    Raises:
        RemoteProtocolError: such a frame may not come now.
    """
    if kind in IGNORED:
        return state
    after = RECEIVES.get((side, state), {}).get(kind)
    if after is None:
        name = frames.KINDS.get(kind, f"number {kind}")
        raise RemoteProtocolError(f"A {side} in state {state!r} received a frame {name!r}, which may not come there.")
    return after
