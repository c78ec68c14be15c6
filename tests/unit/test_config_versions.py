"""The JSON of ``models`` and ``model_snapshot``."""

import json

import pytest

from marserve.config.kinds import NATIVE
from marserve.config.loading import load_settings
from marserve.config.versions import PARAMETERS, SNAPSHOT, VersionEntry, entry_of, models_value
from marserve.errors import ConfigError

WHOLE = {
    "defaultVersion": True,
    "marName": "m.mar",
    "minWorkers": 1,
    "maxWorkers": 2,
    "batchSize": 4,
    "maxBatchDelay": 50,
}


def parameters(**told: object) -> VersionEntry:
    return PARAMETERS.read(json.dumps({"m": {"1.0": told}}), NATIVE)[0]


def snapshot(**told: object) -> VersionEntry:
    entries = SNAPSHOT.read(json.dumps({"models": {"m": {"1.0": {**WHOLE, **told}}}}), NATIVE)
    assert entries is not None
    return entries[0]


def test_parameters_of_versions() -> None:
    text = (
        '{"m": {"1.0": {"minWorkers": 1, "maxBatchDelay": 50, "runtimeType": "python3"}, "2.0": {}}, "n": {"1": {}}}'
    )
    assert PARAMETERS.read(text, NATIVE) == (
        VersionEntry("m", "1.0", min_workers=1, max_batch_delay=0.05, runtime="python3"),
        VersionEntry("m", "2.0"),
        VersionEntry("n", "1"),
    )
    assert PARAMETERS.read("", NATIVE) == ()


def test_a_version_finds_its_entry() -> None:
    first, second = VersionEntry("m", "1.0"), VersionEntry("m", "2.0")
    assert entry_of((first, second), "m", "2.0") is second
    assert entry_of((first, second), "n", "2.0") is None


@pytest.mark.parametrize("value", [0, -1, None, "0"])
def test_what_is_not_above_0_stands_for_the_default(value: object) -> None:
    assert parameters(minWorkers=value, maxBatchDelay=value, responseTimeout=value) == VersionEntry("m", "1.0")


def test_a_number_may_be_a_text() -> None:
    assert parameters(minWorkers="2", responseTimeout="1.5").min_workers == 2


def test_a_whole_number_may_have_a_point() -> None:
    assert parameters(minWorkers=2.0, batchSize="3.00") == VersionEntry("m", "1.0", min_workers=2, batch_size=3)


@pytest.mark.parametrize(
    "text",
    [
        "{'m': {'1.10': {'minWorkers': 2, 'defaultVersion': true, 'marName': 'm.mar'}}}",
        "{m: {1.10: {minWorkers: 2, defaultVersion: true, marName: m.mar}}}",
        '{"m": {"1.10": {"minWorkers": 2, "defaultVersion": true, "marName": "m.mar"}}} # two',
    ],
)
def test_json_may_be_as_loose_as_the_old_server_takes_it(text: str) -> None:
    assert PARAMETERS.read(text, NATIVE) == (VersionEntry("m", "1.10", True, "m.mar", min_workers=2),)


def test_what_only_tells_a_reader_is_taken() -> None:
    assert parameters(defaultVersion=True, marName="m.mar", parallelLevel=2).unknown == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON: "),
        ("m: {'1.0': {}}", "is no JSON: "),
        ("{'m'}", "has a value for m that is no JSON object"),
        ("[1]", "is no JSON object"),
        ('{"m": 7}', "has a value for m that is no JSON object"),
        ('{"m": {"1.0": [1]}}', "has a value for m 1.0 that is no JSON object"),
        ('{"m": {"1.0": {"minWorkers": "few"}}}', 'has for m 1.0 the minWorkers "few", which is no whole number'),
        ('{"m": {"1.0": {"batchSize": 1.5}}}', "has for m 1.0 the batchSize 1.5, which is no whole number"),
        ('{"m": {"1.0": {"batchSize": true}}}', "has for m 1.0 the batchSize true, which is no whole number"),
        ('{"m": {"1.0": {"responseTimeout": []}}}', "has for m 1.0 the responseTimeout [], which is no number"),
        ('{"m": {"1.0": {"runtimeType": "java"}}}', "is none of python, python2, python3, LSP"),
        ('{"m": {"1.0": {"marName": 3}}}', "has for m 1.0 the marName 3, which is no text"),
        ('{"m": {"1.0": {"defaultVersion": 1}}}', "which is neither true nor false"),
    ],
)
def test_what_parameters_cannot_be(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        PARAMETERS.read(text, NATIVE)
    assert reason in str(caught.value)


@pytest.mark.parametrize("dialect", ["native", "torchserve"])
def test_a_broken_value_stops_the_start_and_says_where(dialect: str) -> None:
    with pytest.raises(ConfigError, match=r'line 1: models=\{"m" is no JSON: '):
        load_settings('models={"m"', dialect=dialect)


def test_an_unknown_member_is_told() -> None:
    text = 'models={"m": {"1.0": {"minworkers": 1}}}'
    told = "models has minworkers for m 1.0, which means nothing."
    assert load_settings(text, dialect="torchserve").warnings == [told]
    with pytest.raises(ConfigError, match=told):
        load_settings(text)


def test_a_snapshot_as_the_old_server_writes_it() -> None:
    text = json.dumps({"name": "x.cfg", "modelCount": 1, "created": 7, "models": {"m": {"1.0": WHOLE}}}, indent=2)
    assert SNAPSHOT.read(text, NATIVE) == (
        VersionEntry(
            "m",
            "1.0",
            is_default=True,
            archive="m.mar",
            min_workers=1,
            max_workers=2,
            batch_size=4,
            max_batch_delay=0.05,
        ),
    )


def test_a_snapshot_without_models_is_one() -> None:
    assert SNAPSHOT.read("{}", NATIVE) == ()
    assert SNAPSHOT.read("", NATIVE) is None


def test_the_zeros_of_a_snapshot_were_chosen_where_they_can_be_meant() -> None:
    entry = snapshot(minWorkers=0, maxWorkers=0, maxBatchDelay=0, responseTimeout=0)
    assert (entry.min_workers, entry.max_workers, entry.max_batch_delay) == (0, 0, 0)
    assert entry.response_timeout is None


@pytest.mark.parametrize("member", WHOLE)
def test_a_snapshot_without_a_required_member_is_refused(member: str) -> None:
    with pytest.raises(ValueError, match=f"has no {member} for m 1.0"):
        snapshot(**{member: None})


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (VersionEntry("m", "1.0"),),
        (VersionEntry("m", "1.0", min_workers=1, unknown=("more",)), VersionEntry("ü", "2")),
        (VersionEntry("m", "1", max_batch_delay=0.1, response_timeout=0.25, runtime="python", handler="a:b"),),
    ],
)
def test_what_is_shown_reads_as_itself(entries: tuple[VersionEntry, ...]) -> None:
    assert PARAMETERS.read(PARAMETERS.show(entries), NATIVE) == entries


@pytest.mark.parametrize(
    "entries", [None, (), (VersionEntry("m", "1", True, "m.mar", 0, 0, 1, 0.0, 120.0, 120.0, "python"),)]
)
def test_a_snapshot_that_is_shown_reads_as_itself(entries: tuple[VersionEntry, ...] | None) -> None:
    assert SNAPSHOT.read(SNAPSHOT.show(entries), NATIVE) == entries


def test_whole_numbers_are_written_without_a_point() -> None:
    value = models_value([VersionEntry("m", "1.0", max_batch_delay=0.1, response_timeout=120.0)])
    assert json.dumps(value) == (
        '{"m": {"1.0": {"defaultVersion": false, "maxBatchDelay": 100, "responseTimeout": 120}}}'
    )
