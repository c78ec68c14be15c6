"""A server that runs otherwise than it is compared is no contender."""

import json

import pytest
from bench.load import MeasureError
from bench.plan import CONTENDERS
from bench.servers import check_description

SETTINGS = {"batch_size": "1", "default_workers_per_model": "2"}


def description(batch_size=1, workers=2, delay=0):
    """Return what the management door says of a model."""
    return json.dumps([{"batchSize": batch_size, "workers": [{}] * workers, "maxBatchDelay": delay}]).encode()


def test_server_that_keeps_its_settings_is_measured():
    check_description(description(), SETTINGS)


@pytest.mark.parametrize("otherwise", [{"batch_size": 32}, {"workers": 1}, {"delay": 100}])
def test_server_that_runs_otherwise_is_not_measured(otherwise):
    with pytest.raises(MeasureError, match="wanted are"):
        check_description(description(**otherwise), SETTINGS)


def test_every_marserve_says_what_the_check_needs():
    for contender in CONTENDERS:
        if contender.kind == "marserve":
            assert SETTINGS.keys() <= contender.settings.keys()
