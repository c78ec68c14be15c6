"""What may follow what on a link."""

from __future__ import annotations

import pytest

from marserve.errors import RemoteProtocolError
from marserve.wire import frames
from marserve.wire.protocol import IGNORED, SERVER, WORKER, next_state


def walk(side, kinds):
    state = "open"
    for kind in kinds:
        state = next_state(side, state, kind)
    return state


def test_the_life_of_a_link_as_the_server_hears_it():
    assert walk(SERVER, [frames.HELLO, frames.LOADED, frames.ANSWER, frames.ANSWER]) == "ready"


def test_the_life_of_a_link_as_the_worker_hears_it():
    assert walk(WORKER, [frames.WELCOME, frames.LOAD, frames.BATCH, frames.BATCH, frames.STOP]) == "closed"
    assert walk(WORKER, [frames.WELCOME, frames.STOP]) == "closed"


@pytest.mark.parametrize(
    ("side", "before", "kind"),
    [
        (SERVER, [], frames.LOADED),
        (SERVER, [], frames.ANSWER),
        (SERVER, [frames.HELLO], frames.HELLO),
        (SERVER, [frames.HELLO], frames.ANSWER),
        (SERVER, [frames.HELLO, frames.LOADED], frames.LOADED),
        (SERVER, [frames.HELLO, frames.LOADED], frames.BATCH),
        (SERVER, [frames.HELLO, frames.LOADED], 0),
        (SERVER, [frames.HELLO, frames.LOADED], 255),
        (WORKER, [], frames.BATCH),
        (WORKER, [frames.WELCOME], frames.BATCH),
        (WORKER, [frames.WELCOME, frames.LOAD], frames.LOAD),
        (WORKER, [frames.WELCOME, frames.LOAD, frames.STOP], frames.BATCH),
    ],
)
def test_what_comes_out_of_turn_is_refused_by_name(side, before, kind):
    with pytest.raises(RemoteProtocolError, match=frames.KINDS.get(kind, f"number {kind}")):
        next_state(side, walk(side, before), kind)


@pytest.mark.parametrize("kind", sorted(IGNORED))
@pytest.mark.parametrize(("side", "state"), [(SERVER, "greeted"), (SERVER, "ready"), (WORKER, "ready")])
def test_kinds_of_later_versions_are_passed_over(side, state, kind):
    assert next_state(side, state, kind) == state


def test_every_kind_has_a_name_and_a_number_of_its_own():
    assert len(set(frames.KINDS.values())) == len(frames.KINDS)
    assert set(frames.KINDS) >= IGNORED
