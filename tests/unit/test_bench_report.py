"""Rounds to medians, ratios and verdicts."""

import json

import pytest
from bench.plan import CONTENDERS, TARGETS, Target
from bench.report import Results, Spread, as_json, figure_rows, print_report, show, show_spread, target_rows
from bench.run import cells_of, targets_of, teams_of
from rich.console import Console

FASTER = Target("ours / theirs", "rps", "marserve@64", "asgi@64", 1.2)
SMALL = Target("resident", "resident", "marserve@rest", None, 60e6, True, "MB")


def results_of(*pairs, **void):
    """Return results whose rounds give marserve and the bare function these requests a second."""
    rounds = [
        {
            "marserve@64": {"rps": ours, "p50": 0.001, "p99": 0.002},
            "asgi@64": {"rps": theirs, "p50": 0.002, "p99": 0.01},
        }
        for ours, theirs in pairs
    ]
    return Results(rounds, {name.replace("_", "@"): reason for name, reason in void.items()})


def test_ratio_is_taken_within_a_round():
    # given a machine that halves its speed in the second round
    results = results_of((2000.0, 1000.0), (1000.0, 500.0), (1500.0, 1000.0))
    # then the rounds' ratios are 2, 2 and 1.5, whatever the medians of both sides are
    assert results.outcome(FASTER) == Spread(2.0, 1.5, 2.0)


def test_figure_without_a_rival_is_its_median():
    results = Results([{"marserve@rest": {"resident": each}} for each in (50e6, 70e6, 55e6)])
    assert results.outcome(SMALL) == Spread(55e6, 50e6, 70e6)


@pytest.mark.parametrize("name", ["marserve_64", "asgi_64"])
def test_cell_that_is_void_makes_its_ratios_unmeasured(name):
    results = results_of((2000.0, 1000.0), **{name: "3 answers with errors"})
    assert results.outcome(FASTER) is None
    assert target_rows(results, [FASTER]) == [["ours / theirs", "-", "≥ 1.20 x", "not measured"]]


def test_cell_that_is_missing_from_every_round_is_unmeasured():
    assert Results([{}]).outcome(FASTER) is None
    assert Results([{}]).outcome(SMALL) is None


@pytest.mark.parametrize(
    ("target", "value", "is_reached"),
    [(FASTER, 1.2, True), (FASTER, 1.19, False), (SMALL, 60e6, True), (SMALL, 61e6, False)],
)
def test_bound_itself_is_reached(target, value, is_reached):
    assert target.is_reached(value) is is_reached


def test_verdict_stands_beside_the_promise():
    rows = target_rows(results_of((2000.0, 1000.0), (1100.0, 1000.0), (1150.0, 1000.0)), [FASTER])
    assert rows == [["ours / theirs", "1.15 x (1.10 x … 2.00 x)", "≥ 1.20 x", "not reached"]]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.000123, "µs", "123"),
        (12345.6, "rps", "12,346"),
        (99.44, "rps", "99.4"),
        (52_300_000, "MB", "52.3 MB"),
        (0.0, "yes/no", "no"),
        (0.81, "s", "0.81 s"),
    ],
)
def test_figures_are_shown_in_their_unit(value, unit, text):
    assert show(value, unit) == text


def test_range_is_shown_only_where_there_is_one():
    assert show_spread(Spread(1.5, 1.5, 1.5), "x") == "1.50 x"
    assert show_spread(None, "x") == "-"


def test_rows_name_connections_and_latencies():
    rows = figure_rows(results_of((2000.0, 1000.0)))
    assert rows == [
        ["marserve, batch 1", "64", "2,000", "1,000", "2,000"],
        ["bare ASGI function on uvicorn", "64", "1,000", "2,000", "10,000"],
    ]


def test_report_says_once_why_cells_are_void(capsys):
    # given two cells of one server that did not start
    results = results_of((2000.0, 1000.0), fastapi_1="It ended with code 1.", fastapi_64="It ended with code 1.")
    # when it is printed where there is no terminal
    print_report(Console(highlight=False), results, [FASTER])
    # then lines are plain, and the reason stands once
    printed = capsys.readouterr().out
    assert "ours / theirs  2.00 x  ≥ 1.20 x  reached" in printed
    assert printed.count("It ended with code 1.") == 1
    assert "fastapi@1, fastapi@64" in printed
    assert "\x1b" not in printed


def test_json_holds_rounds_verdicts_and_where_they_come_from():
    content = json.loads(
        json.dumps(as_json(results_of((2000.0, 1000.0)), [FASTER, SMALL], {"machine": {"cores": 2}}))
    )
    assert content["machine"] == {"cores": 2}
    assert content["rounds"][0]["asgi@64"]["rps"] == 1000.0
    assert [(found["median"], found["is_reached"]) for found in content["targets"]] == [(2.0, True), (None, None)]


def test_every_target_speaks_of_cells_that_are_measured():
    assert targets_of(CONTENDERS) == list(TARGETS)
    filled = [name for contender in CONTENDERS for name in cells_of(contender)]
    assert len(filled) == len(set(filled))


def test_fewer_contenders_leave_only_targets_that_they_decide():
    marserve = [contender for contender in CONTENDERS if contender.key == "marserve"]
    assert {target.of for target in targets_of(marserve)} == {"marserve@rest"}


def test_those_that_differ_by_little_run_at_the_same_time_and_each_runs_once():
    teams = [[one.key for one in together] for together in teams_of(CONTENDERS)]
    assert ["logged", "blind"] in teams
    assert sorted(key for team in teams for key in team) == sorted(one.key for one in CONTENDERS)


def test_one_whose_companion_is_not_asked_for_runs_alone():
    logged = [one for one in CONTENDERS if one.key == "logged"]
    assert teams_of(logged) == [logged]
