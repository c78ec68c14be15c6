"""``/ping`` in each dialect, state by state."""

import pytest
from served_fakes import Served

from marserve.errors import LoadError
from marserve.supervisor.lifecycle import WorkerState


def starting(served: Served) -> None:
    served.inference.startup = "The models of the start-up are being loaded."


def idle(served: Served) -> None:
    served.add(workers=0)


def ready(served: Served) -> None:
    served.add(workers=2)


def loading(served: Served) -> None:
    pool = served.add(workers=1).pool
    pool.workers[0].state = WorkerState.LOADING
    pool.starting_count = 1


def degraded(served: Served) -> None:
    pool = served.add(workers=2).pool
    pool.workers[0].state = WorkerState.LOADING
    pool.starting_count = 1


def given_up(served: Served) -> None:
    pool = served.add(workers=1).pool
    pool.workers = []
    pool.failure = LoadError("The service does not load.")


@pytest.mark.parametrize(
    ("state", "native", "torchserve", "mms"),
    [
        (starting, 503, (500, "Unhealthy"), "Unhealthy"),
        (idle, 200, (200, "Healthy"), "Healthy"),
        (ready, 200, (200, "Healthy"), "Healthy"),
        (loading, 503, (200, "Healthy"), "Unhealthy"),
        (degraded, 200, (200, "Healthy"), "Partial Healthy"),
        (given_up, 503, (500, "Unhealthy"), "Unhealthy"),
    ],
)
def test_ping_tells_the_state(state, native: int, torchserve: tuple[int, str], mms: str) -> None:
    answers = {}
    for dialect in ("native", "torchserve", "mms"):
        served = Served(dialect)
        state(served)
        answers[dialect] = served.ask("GET", "/ping")

    assert answers["native"].status == native
    assert (answers["torchserve"].status, answers["torchserve"].json) == (torchserve[0], {"status": torchserve[1]})
    assert (answers["mms"].status, answers["mms"].json) == (200, {"status": mms})


def test_natively_a_healthy_server_says_no_more_than_that() -> None:
    served = Served()
    ready(served)

    assert served.ask("GET", "/ping").body == b'{"status":"Healthy"}\n'


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (starting, "are being loaded"),
        (degraded, "1 of 2 workers can answer"),
        (given_up, "The service does not load."),
    ],
)
def test_natively_ping_says_what_is_missing(state, reason: str) -> None:
    served = Served()
    state(served)

    assert reason in " ".join(served.ask("GET", "/ping").json["reasons"])


def test_natively_a_stopping_server_is_not_ready() -> None:
    served = Served()
    ready(served)
    served.inference.is_draining = True

    assert served.ask("GET", "/ping").status == 503


def test_the_old_servers_take_any_method_and_any_path_below() -> None:
    served = Served("mms")

    assert [served.ask(method, target).status for method, target in (("POST", "/ping"), ("GET", "/ping/x"))] == [
        200,
        200,
    ]
    assert Served().ask("POST", "/ping").status == 405
