"""Two results of our own: what got slower beyond the noise, and which ratio fell."""

import json

import pytest
from bench.compare import changes, fallen, machine_kind, main

MACHINE = {"processor": "AMD EPYC", "cores": 2}


def content(*rounds, cell="marserve@64", figure="rps", floor=None):
    """Return a result whose rounds give a cell these figures, and the floor those."""
    made = [{cell: {figure: value}} for value in rounds]
    for one, value in zip(made, floor or (), strict=False):
        one["asgi@64"] = {figure: value}
    return {"machine": MACHINE, "rounds": made, "void": {}}


def verdicts(old, new):
    return [change.verdict for change in changes(old, new)]


def test_slower_is_what_lies_below_all_rounds_before():
    assert verdicts(content(100, 104, 98), content(90, 88, 85)) == ["slower"]


def test_ranges_that_touch_are_noise():
    assert verdicts(content(100, 104, 80), content(90, 88, 85)) == ["the same"]


def test_small_change_is_none_however_narrow_the_ranges():
    assert verdicts(content(100, 100, 100), content(97, 97, 97)) == ["the same"]


def test_single_rounds_must_differ_by_a_fifth():
    assert verdicts(content(100), content(85)) == ["the same"]
    assert verdicts(content(100), content(75)) == ["slower"]
    # also where other cells of the file have more rounds
    old, new = content(100), content(85)
    old["rounds"] += [{}, {}]
    new["rounds"] += [{}, {}]
    assert verdicts(old, new) == ["the same"]


@pytest.mark.parametrize(("figure", "verdict"), [("p50", "slower"), ("memory", "slower"), ("rps", "faster")])
def test_more_of_a_figure_is_worse_or_better_by_its_kind(figure, verdict):
    assert verdicts(content(1.0, 1.1, figure=figure), content(2.0, 2.1, figure=figure)) == [verdict]


def test_machine_that_is_slower_is_not_taken_for_the_server():
    # given a second day on which everything is half as fast
    old, new = content(100, 102, floor=[50, 51]), content(50, 51, floor=[25, 25.5])
    (change,) = changes(old, new)
    # then the ratio to the floor is what counts
    assert (change.is_ratio, change.factor, change.verdict) == (True, 1.0, "the same")


def test_figures_of_others_and_void_ones_are_left_alone():
    new = content(10, 10)
    new["void"] = {"marserve@64": "errors"}
    assert verdicts(content(100, 100), new) == []
    assert (
        verdicts(content(100, 100, cell="small/two_layers/mosec@64"), content(1, 1, cell="small/two_layers/mosec@64"))
        == []
    )


def test_results_beside_peers_compare_by_the_same_floor():
    cell = "small/two_layers/marserve@64"
    (change,) = changes(content(100, 101, cell=cell), content(50, 51, cell=cell))
    assert (change.cell, change.verdict) == (cell, "slower")


def test_command_ends_with_one_where_something_got_slower(tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(content(100, 101)))
    new.write_text(json.dumps(content(50, 51)))
    assert main([str(old), str(new)]) == 1
    assert "slower" in capsys.readouterr().out
    assert main([str(old), str(old)]) == 0


def ratio(median, is_ceiling=False, to="asgi@64"):
    return {"targets": [{"title": "t", "to": to, "median": median, "is_ceiling": is_ceiling}]}


@pytest.mark.parametrize(
    ("old", "new", "falls"),
    [
        (ratio(2.0), ratio(1.7), False),
        (ratio(2.0), ratio(1.5), True),
        (ratio(0.5, True), ratio(0.55, True), False),
        (ratio(0.5, True), ratio(0.7, True), True),
        (ratio(2.0, to=None), ratio(1.0, to=None), False),
        (ratio(2.0), ratio(None), False),
    ],
)
def test_fall_of_more_than_a_fifth_is_said(old, new, falls):
    assert bool(fallen(old, new)) is falls


def test_kind_of_a_machine_is_a_name_for_a_file():
    assert machine_kind({"processor": "AMD EPYC (TM) 9@2.0GHz", "cores": 2}) == "amd-epyc-tm-9-2-0ghz-2"
    assert machine_kind({"processor": "", "cores": 4}) == "unknown-4"
