"""``parallelType``, ``parallelLevel`` and ``torchrun`` of a model-config, and what is said of those in vain."""

from __future__ import annotations

import logging

import pytest
from plane_bench import PlaneBench
from pool_bench import TIMED

from marserve.config.loading import load_settings
from marserve.fittings import worker_environment
from marserve.planes.parallel import parallel_of
from marserve.planes.resolving import Registration
from marserve.supervisor.parallel import AGENT, Parallel
from marserve.supervisor.process import WORKER
from marserve.testing import FakeClock, in_fake_time


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    for module in TIMED:
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("config", "parallel"),
    [
        ({}, Parallel()),
        ({"parallelType": "tp", "parallelLevel": 2}, Parallel("tp", 2, {})),
        ({"parallelType": "PP", "torchrun": {"nproc-per-node": 4}}, Parallel("pp", 4, {})),
        ({"parallelType": "pptp", "parallelLevel": 8, "torchrun": {"nproc-per-node": 2}}, Parallel("pptp", 2, {})),
        ({"parallelType": "tp", "parallelLevel": 8, "torchrun": {}}, Parallel("tp", 1, {})),
        ({"parallelType": "custom", "parallelLevel": 2}, Parallel("custom", 2, {})),
        (
            {
                "parallelType": "tp",
                "torchrun": {
                    "nproc-per-node": 2,
                    "nnodes": 1,
                    "rdzv-backend": "static",
                    "rdzv-endpoint": "head:1",
                    "rdzv-conf": "timeout=3",
                    "monitor-interval": 5,
                    "node-rank": 0,
                    "OMP_NUMBER_THREADS": 3,
                },
            },
            Parallel(
                "tp",
                2,
                {
                    "nnodes": "1",
                    "rdzv_backend": "static",
                    "rdzv_endpoint": "head:1",
                    "rdzv_conf": "timeout=3",
                    "monitor_interval": "5",
                    "node_rank": "0",
                },
                3,
            ),
        ),
    ],
)
def test_what_counts_is_read_without_a_word(
    config: dict[str, object], parallel: Parallel, caplog: pytest.LogCaptureFixture
) -> None:
    assert parallel_of(config, "net.mar") == parallel
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("config", "parallel", "words"),
    [
        ({"parallelLevel": 2}, Parallel(), "parallelLevel has no effect without a parallelType"),
        ({"torchrun": {"nproc-per-node": 2}}, Parallel(), "torchrun has no effect without a parallelType"),
        ({"parallelType": "tp"}, Parallel(), "parallelType has no effect without parallelLevel or torchrun"),
        ({"parallelType": "tp", "parallelLevel": "2"}, Parallel(), "parallelType has no effect"),
        ({"parallelType": "dp", "parallelLevel": 2}, Parallel(), "parallelType is 'dp'; it is one of pp, pptp, tp"),
        (
            {"parallelType": "tp", "parallelLevel": 3, "torchrun": 2},
            Parallel("tp", 3, {}),
            "torchrun is 2, which holds no options",
        ),
        (
            {"parallelType": "tp", "torchrun": {"nproc-per-node": 2, "max-restarts": 3}},
            Parallel("tp", 2, {}),
            "torchrun has no option max-restarts here",
        ),
        (
            {"parallelType": "tp", "torchrun": {"nproc-per-node": 2, "node-rank": -1}},
            Parallel("tp", 2, {}),
            "torchrun's node-rank cannot be -1",
        ),
        (
            {"parallelType": "custom", "torchrun": {"nproc-per-node": 2}},
            Parallel("custom", 2, {}),
            "a custom service starts its processes",
        ),
    ],
)
def test_what_is_in_vain_is_told(
    config: dict[str, object], parallel: Parallel, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert parallel_of(config, "net.mar") == parallel
    assert words in caplog.text


async def launched(clock, folder, workers, *, gpu_ids=(), **config):
    """Register a model of such a model-config; return what its workers were started with and told to load."""
    house = PlaneBench(clock, folder, gpu_ids=gpu_ids)
    for name in ("first", "second"):
        location = house.stock(f"{name}.mar", name=name, **config)
        await house.management.register(Registration(location, initial_workers=workers), wait=True)
    found = [(process.launch, process.worker.told) for process in house.starter.processes]
    await house.close()
    return found


@in_fake_time
async def test_ranks_are_started_by_an_agent_and_meet_at_a_socket_of_their_worker(clock, tmp_path):
    found = await launched(
        clock, tmp_path, 2, parallelType="tp", torchrun={"nproc-per-node": 2, "OMP_NUMBER_THREADS": 3}
    )

    assert [told["worker"] for _, told in found] == [29500, 29502, 29504, 29506], "a number a rank"
    for launch, told in found:
        assert launch.program.code == AGENT
        assert launch.environment["MARSERVE_RANKS"] == str(tmp_path / f"r{told['worker']}")
        assert launch.environment["OMP_NUM_THREADS"] == "3"
        assert (told["is_fanned_out"], told["thread_count"], told["gpu_id"], told["devices"]) == (True, 3, None, [])
    assert "second_29504" in found[2][0].program.arguments


@in_fake_time
async def test_each_worker_sees_its_own_gpus(clock, tmp_path):
    found = await launched(clock, tmp_path, 2, gpu_ids=(0, 1, 2, 3), parallelType="pp", parallelLevel=2)
    seen = [(launch.environment["CUDA_VISIBLE_DEVICES"], told["gpu_id"]) for launch, told in found]
    assert seen == [("0,1", 0), ("2,3", 0)] * 2


@in_fake_time
async def test_a_custom_worker_is_an_ordinary_one_with_several_gpus(clock, tmp_path):
    [(launch, told), _] = await launched(clock, tmp_path, 1, gpu_ids=(0, 1), parallelType="custom", parallelLevel=2)
    assert launch.program == WORKER
    assert launch.environment == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert told["is_fanned_out"] is False


@in_fake_time
async def test_an_ordinary_worker_sees_all_gpus_and_gets_one(clock, tmp_path):
    [(launch, told), _] = await launched(clock, tmp_path, 1, gpu_ids=(0, 1))
    assert (launch.program, launch.environment) == (WORKER, {})
    assert (told["worker"], told["gpu_id"], told["devices"]) == (9000, 0, [])


def test_switches_reach_the_workers_environment():
    text = "ipex_enable=true\nipex_gpu_enable=true\ndecode_input_request=false"
    told = worker_environment(load_settings(text, {}, "torchserve").settings)
    assert (told["TS_IPEX_ENABLE"], told["TS_IPEX_GPU_ENABLE"], told["TS_DECODE_INPUT_REQUEST"]) == (
        "true",
        "true",
        "false",
    )
    told = worker_environment(load_settings("", {}, "native").settings)
    assert (told["TS_IPEX_ENABLE"], told["TS_DECODE_INPUT_REQUEST"]) == ("false", "true")


def test_onnxruntime_does_not_phone_home_unless_it_is_told_to(monkeypatch):
    settings = load_settings("", {}, "native").settings
    assert worker_environment(settings)["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert worker_environment(settings)["ORT_DISABLE_TELEMETRY"] == "0"
