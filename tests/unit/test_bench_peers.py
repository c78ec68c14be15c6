"""Peers: the plan keeps its time and its words, a result becomes ratios, tables, plots and a page."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

import pytest
from bench.load import MeasureError
from bench.memory import pss
from bench.peers.asking import check_right, path_of
from bench.peers.commands import LAUNCHERS, Mode
from bench.peers.management import are_ready, check_mode
from bench.peers.plan import (
    LONGEST,
    LONGEST_QUICK,
    MANY,
    QUICK,
    SUITES,
    cells_of,
    expected_seconds,
    name_of,
)
from bench.peers.plots import bar_chart, in_short, line_chart, log_ticks, spread_out
from bench.peers.promises import PROMISES, Promise
from bench.peers.report import filled, html_report, markdown, readme_block
from bench.peers.run import settled
from bench.peers.stages import stage_seconds
from bench.peers.table import LOOP, OURS, PEERS
from bench.peers.tables import Book, all_tables, notes, promise_table, readme_rows
from bench.report import Spread
from bench.services.workloads import ARCHIVES, WORKLOADS, is_close

MACHINE = {"processor": "P", "cores": 2, "python": "3", "time": "2026-01-02T03", "commit": "c", "load_average": 0.1}


def result(suites=SUITES, rps=lambda peer: 1000.0, rounds=2, void=()):
    """Return a result in which each peer does ``rps(key)`` and all else is 1 or follows from it."""
    one = {}
    for suite in suites:
        for peer in suite.peers:
            for cell in cells_of(suite, peer):
                figures = dict.fromkeys(
                    ("p50", "p90", "p99", "p999", "lag", "first_answer", "memory", "seconds"), 0.001
                )
                one[cell] = figures | {"rps": rps(peer), "bytes": rps(peer), "rate": 5.0, "answered": 5.0}
    peers = {key: {"title": peer.title, "version": "v==1", "left_out": ""} for key, peer in PEERS.items()}
    content = {"machine": MACHINE | {"seconds": 60}, "peers": peers, "suites": [asdict(suite) for suite in suites]}
    return json.loads(json.dumps(content | {"void": dict.fromkeys(void, "it fell over"), "rounds": [one] * rounds}))


# --- the plan ------------------------------------------------------------------------------------------


def test_plan_keeps_its_time():
    assert expected_seconds(SUITES) <= LONGEST
    assert expected_seconds(QUICK) <= LONGEST_QUICK


@pytest.mark.parametrize("suites", [SUITES, QUICK])
def test_plan_speaks_of_what_is_there(suites):
    for suite in suites:
        assert suite.peers[0] == OURS
        assert set(suite.peers) <= PEERS.keys()
        assert len({WORKLOADS[key].archive for key in suite.workloads}) == 1
        # a share is one of the maximum that was found under that load
        assert MANY in suite.closed or not suite.shares


def test_every_peer_and_every_workload_is_measured():
    assert {peer for suite in SUITES for peer in suite.peers} == set(PEERS)
    assert {key for suite in SUITES for key in suite.workloads} == set(WORKLOADS)
    assert {workload.archive for workload in WORKLOADS.values()} == set(ARCHIVES)
    assert {peer.launcher for peer in PEERS.values()} == {*LAUNCHERS, LOOP}


def test_no_peer_gets_a_body_that_it_cannot_pass_on():
    for suite in SUITES:
        for key in suite.workloads:
            if WORKLOADS[key].echoes:
                assert all(PEERS[peer].takes_bytes for peer in suite.peers)


def test_batches_are_asked_of_those_who_make_them():
    for suite in SUITES:
        if suite.mode.batch > 1:
            assert all(PEERS[peer].batches or PEERS[peer].launcher == LOOP for peer in suite.peers)


def test_pinned_versions_are_exact():
    packages = {package for peer in PEERS.values() for package in peer.packages}
    assert packages
    assert all("==" in package for package in packages)
    # peers that share an environment ask for the same
    lists = {(peer.environment, peer.packages) for peer in PEERS.values() if peer.environment}
    assert len(lists) == len({environment for environment, _ in lists})


def test_every_promise_is_about_a_cell_of_the_plan():
    cells = {cell for suite in SUITES for peer in suite.peers for cell in cells_of(suite, peer)}
    for promise in PROMISES:
        other, load, _ = promise.divisor
        assert name_of(promise.suite, promise.workload, OURS, promise.load) in cells
        assert name_of(other, promise.workload, promise.peer, load) in cells


def test_open_loads_end_after_their_rounds():
    (small,) = (suite for suite in SUITES if suite.key == "small")
    assert "share 0.5" in small.open_loads(small.open_rounds)
    assert small.open_loads(small.open_rounds + 1) == ()


# --- what is asked, and what is read --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "answer"),
    [
        ("marserve", b'{"next_number": "FizBuz"}'),
        ("bentoml", b'[{"next_number": "FizBuz"}]'),
        ("mlserver", b'{"outputs": [{"data": ["{\\"next_number\\": \\"FizBuz\\"}"]}]}'),
    ],
)
def test_right_answer_is_known_in_each_peers_form(peer, answer):
    workload = WORKLOADS["two_layers"]
    check_right(PEERS[peer], workload, 200, answer)
    for status, wrong in ((503, answer), (200, b'{"next_number": "Fiz"}'), (200, b"[]"), (200, b"no json")):
        with pytest.raises(MeasureError, match="answered with"):
            check_right(PEERS[peer], workload, status, wrong)


def test_echo_is_right_to_the_last_byte():
    workload = WORKLOADS["echo_1k"]
    check_right(PEERS["mosec"], workload, 200, workload.body())
    with pytest.raises(MeasureError):
        check_right(PEERS["mosec"], workload, 200, workload.body()[:-1] + b"?")


def test_numbers_may_differ_by_what_a_batch_adds_up_otherwise():
    assert is_close({"a": [0.50001, "x"]}, {"a": [0.5, "x"]})
    assert not is_close({"a": [0.6, "x"]}, {"a": [0.5, "x"]})
    assert not is_close({"a": 1}, {"b": 1})
    assert not is_close([1], [1, 2])


def test_paths_are_those_of_the_peer():
    assert path_of(PEERS["fastapi"], WORKLOADS["echo_1k"]) == "/predictions/echo/bytes"
    assert path_of(PEERS["mlserver"], WORKLOADS["two_layers"]) == "/v2/models/bench/infer"
    assert path_of(PEERS["mosec"], WORKLOADS["two_layers"]) == "/predictions/two_layers"


def test_server_in_another_mode_is_not_measured():
    description = json.dumps([{"batchSize": 1, "workers": [{}, {}]}]).encode()
    check_mode(Mode(2, 1), description)
    check_mode(Mode(2, 1), description[1:-1])
    with pytest.raises(MeasureError, match="wanted is"):
        check_mode(Mode(2, 32), description)


def test_workers_that_only_connect_are_not_ready():
    ready, loading = {"status": "READY"}, {"status": "LOADING"}
    assert are_ready(json.dumps({"workers": [ready, ready]}).encode(), 2)
    assert not are_ready(json.dumps([{"workers": [ready, loading]}]).encode(), 2)
    assert not are_ready(json.dumps([{"workers": [ready]}]).encode(), 2)


def test_memory_that_grows_is_waited_for():
    # given workers that load one after another, the last 0.5 s after the first answer
    values = iter([400.0, 400.0, 800.0, 801.0, 801.0, 1600.0, *[1600.0] * 100])
    took, held = settled(lambda: next(values), lambda seconds: None)
    assert (took, held) == (pytest.approx(0.5), 1600.0)


def test_stages_are_sums_of_their_histograms():
    labels = 'model_name="m",model_version="1.0"'
    text = (
        f"marserve_request_seconds_sum{{{labels}}} 3.0\nmarserve_request_seconds_count{{{labels}}} 10\n"
        f"marserve_queue_seconds_sum{{{labels}}} 0.5\n"
        f'marserve_step_seconds_sum{{{labels},step="wire"}} 0.25\n'
        f'marserve_step_seconds_sum{{{labels},step="wire"}} 1\n'
    )
    assert stage_seconds(text) == {"count": 10.0, "whole": 3.0, "queue": 0.5, "wire": 1.25}


def test_proportional_set_size_is_read_in_bytes():
    assert pss("00400000-7ffd rollup\nRss:  9000 kB\nPss:   1234 kB\nPss_Anon: 5 kB\n") == 1234 * 1024
    assert pss("") == 0


# --- ratios, tables, pages -------------------------------------------------------------------------------


def test_ratio_is_marserves_figure_divided_by_the_others():
    book = Book(result(rps=lambda peer: 6000.0 if peer == OURS else 2000.0))
    cells = [(f"small/two_layers/{peer}@64", "rps") for peer in (OURS, "mosec")]
    assert book.ratio(*cells) == Spread(3.0, 3.0, 3.0)


def test_promise_that_is_kept_or_broken_says_so():
    rows = promise_table(Book(result(rps=lambda peer: 5000.0 if peer == OURS else 1000.0))).rows
    verdicts = {row[0]: row[3] for row in rows}
    assert verdicts["small, two_layers, 64 connections, requests/s: marserve / mosec"] == "reached"
    assert verdicts["small, two_layers, 64 connections, requests/s: marserve / TorchServe"] == "not reached"


def test_promise_about_a_void_cell_is_unmeasured():
    content = result(void=("small/two_layers/mosec@64",))
    rows = {row[0]: row[1:] for row in promise_table(Book(content)).rows}
    assert rows["small, two_layers, 64 connections, requests/s: marserve / mosec"] == ("-", "≥ 4.5 x", "not measured")
    assert notes(Book(content)) == ["Void: small/two_layers/mosec@64: it fell over"]


def test_promise_of_marserve_to_itself_names_the_other_load():
    promise = Promise("small", "512", "rps", "marserve", 0.9, other=("", "64", ""))
    assert promise.divisor == ("small", "64", "rps")
    sides = promise.title.split(": marserve / ")
    assert sides == [f"small, two_layers, {number} connections, requests/s" for number in (512, 64)]


def test_every_measured_peer_has_its_row():
    tables = all_tables(Book(result()))
    small = next(
        table for table in tables if table.title.startswith("two layers, batch 1, one worker, two_layers, 64")
    )
    assert [row[0] for row in small.rows] == [peer.title for peer in PEERS.values() if peer.launcher != LOOP]
    assert all(len(row) == len(table.heads) for table in tables for row in table.rows)


def test_readme_shows_ratios_and_who_was_left_out():
    content = result(rps=lambda peer: 6000.0 if peer == OURS else 2000.0)
    content["peers"]["ray"]["left_out"] = "It cannot be installed: no wheel"
    block = readme_block(content)
    assert "Ray Serve was left out: It cannot be installed: no wheel" in block
    assert "| mosec | 3.00 x |" in block
    page = "a\n<!-- peers:begin -->\nold\n<!-- peers:end -->\nb\n"
    assert filled(page, block) == f"a\n<!-- peers:begin -->\n{block}<!-- peers:end -->\nb\n"
    with pytest.raises(SystemExit, match="needs one line <!-- peers:begin -->"):
        filled("no marks", block)
    assert markdown(readme_rows(Book(content))).count("\n") == 2 + len(PEERS) - 2


def test_part_of_a_run_becomes_a_page_too():
    page = html_report(result(QUICK[:1], rounds=1))
    assert page.count("<svg") == 1
    assert "not measured" in page


def test_page_needs_nothing_beside_it():
    page = html_report(result())
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("<figure>") == page.count("</svg>") > 8


def test_charts_are_well_formed_and_hold_their_names():
    colours = {"a & b": "#000", "c": "#111"}
    lines = line_chart("t", ["1", "8"], {"a & b": [10.0, None], "c": [2.0, 500.0]}, "µs", colours)
    bars = bar_chart("t", [("one", [("a & b", 1.0), ("c", 2.0)])], "MB", colours)
    for svg in (lines, bars):
        words = "".join(ElementTree.fromstring(svg).itertext())
        assert "a & b" in words
    assert lines.count("<circle") == 3
    assert line_chart("t", ["1"], {"a": [None]}, "", {}) == bar_chart("t", [], "", {}) == ""


def test_axes_hold_all_values_and_names_do_not_cover_each_other():
    assert log_ticks(3, 4000) == [1, 10, 100, 1000, 10_000]
    assert log_ticks(10, 10) == [10, 100]
    assert spread_out([50.0, 10.0, 12.0], 15) == [50.0, 10.0, 25.0]
    assert [in_short(value) for value in (0.1, 20.0, 1500.0, 2e6)] == ["0.1", "20", "1.5k", "2M"]
