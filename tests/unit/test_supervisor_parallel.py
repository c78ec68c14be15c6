"""Workers of several processes: torchrun's options, the GPUs of each worker, what runs in its process."""

from __future__ import annotations

import pytest

from marserve.supervisor.parallel import (
    AGENT,
    PINNED,
    Parallel,
    device_group,
    parallel_environment,
    program_of,
    torchrun_arguments,
    visible_devices,
)
from marserve.supervisor.process import WORKER


def options(parallel: Parallel, number: int = 29500) -> dict[str, str]:
    words = torchrun_arguments(parallel, "net", number, "/run/logs")
    return dict(zip(words[::2], words[1::2], strict=True))


def test_torchrun_starts_a_process_a_level_and_none_of_them_again() -> None:
    assert options(Parallel("tp", 4)) == {
        "--nnodes": "1",
        "--nproc_per_node": "4",
        "--rdzv_backend": "c10d",
        "--rdzv_endpoint": "localhost:0",
        "--rdzv_id": "net_29500",
        "--max_restarts": "0",
        "--log_dir": "/run/logs",
    }


def test_the_authors_options_win_but_for_those_that_are_ours() -> None:
    asked = {"rdzv_endpoint": "head:29400", "rdzv_conf": "timeout=60", "nnodes": "2", "node_rank": "1"}
    told = options(Parallel("pp", 2, {**asked, "max_restarts": "7", "nproc_per_node": "9"}))
    assert {f"--{name}": value for name, value in asked.items()}.items() <= told.items()
    assert told["--max_restarts"] == "0"
    assert told["--nproc_per_node"] == "2"


def test_several_machines_meet_where_they_are_told_to() -> None:
    assert "--rdzv_endpoint" not in options(Parallel("tp", 2, {"nnodes": "2"}))


def test_a_static_rendezvous_of_each_worker_has_a_port_of_its_own() -> None:
    found = options(Parallel("tp", 2, {"rdzv_backend": "static"}), 29502)
    assert found["--master_port"] == "29502"
    assert "--rdzv_endpoint" not in found


@pytest.mark.parametrize(
    ("parallel", "has_ranks", "is_fanned_out"),
    [
        (Parallel(), False, False),
        (Parallel("tp", 2), True, True),
        (Parallel("pptp", 2), True, True),
        (Parallel("pp", 2), True, False),
        (Parallel("custom", 2), False, False),
        (Parallel("tp", 0), False, False),
    ],
)
def test_the_kind_says_who_gets_a_batch(parallel: Parallel, has_ranks: bool, is_fanned_out: bool) -> None:
    assert (parallel.has_ranks, parallel.is_fanned_out) == (has_ranks, is_fanned_out)


def test_only_ranks_need_an_agent() -> None:
    assert program_of(Parallel("tp", 2), None, "net", 29500, 1, "/run").code == AGENT
    assert program_of(Parallel("custom", 2), None, "net", 29500, 1, "/run") == WORKER
    assert program_of(Parallel(), None, "net", 9000, 1, "/run") == WORKER


def test_pinned_workers_share_the_cores_out() -> None:
    alone = program_of(Parallel(), ("--use_logical_core",), "net", 9000, 1, "/run")
    assert (alone.code, alone.arguments) == (PINNED, ("--use_logical_core",))
    ranks = [program_of(Parallel(), (), "net", number, 3, "/run").arguments for number in (9000, 9001, 9002)]
    assert {words[:2] for words in ranks} == {("--ninstances", "3")}
    assert {words[3] for words in ranks} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("gpu_ids", "level", "groups"),
    [
        ((0, 1, 2, 3), 2, [(0, 1), (2, 3), (0, 1)]),
        ((1, 3, 5), 2, [(1, 3), (1, 3)]),
        ((4, 6), 1, [(4,), (6,), (4,)]),
        ((0,), 2, [(0,), (0,)]),
    ],
)
def test_gpus_go_to_workers_group_by_group(
    gpu_ids: tuple[int, ...], level: int, groups: list[tuple[int, ...]]
) -> None:
    assert [device_group(gpu_ids, level, turn) for turn in range(len(groups))] == groups


def test_gpus_are_named_as_the_server_sees_them() -> None:
    assert visible_devices((2, 3), None) == "2,3"
    assert visible_devices((0, 1), "3,5") == "3,5"
    assert visible_devices((1,), "GPU-aa, GPU-bb") == "GPU-bb"


def test_the_environment_holds_gpus_and_threads() -> None:
    parallel = Parallel("tp", 2, thread_count=3)
    assert parallel_environment(parallel, [2, 3], None) == {"CUDA_VISIBLE_DEVICES": "2,3", "OMP_NUM_THREADS": "3"}
    assert parallel_environment(Parallel("custom", 2), [0, 1], "7,8") == {"CUDA_VISIBLE_DEVICES": "7,8"}
    assert parallel_environment(Parallel(), [], "7,8") == {}
