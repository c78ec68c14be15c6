"""``ts.launcher``, ``ts.llm_launcher`` and the commands' old names, with no process started."""

import io
import signal
import sys
from pathlib import Path
from queue import Queue

import pytest
import yaml
from ts_modules import module

launcher = module("launcher")
llm = module("llm_launcher")


@pytest.fixture
def ran(monkeypatch):
    """Return the commands that would have been run."""
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    return commands


def test_the_queue_always_ends_with_none(monkeypatch, capsys):
    monkeypatch.setattr(launcher, "_LINES", 2)
    for count in (1, 2, 3):
        lines = Queue(2)
        launcher._pass_on(io.StringIO("line\n" * count), lines)
        found = [lines.get() for _ in range(lines.qsize())]
        assert found == ["line\n"] * min(count, 1) + [None]
    assert capsys.readouterr().out == "line\n" * 6


@pytest.mark.parametrize(("waits", "flags"), [(True, ["--stop", "--foreground"]), (False, ["--stop"])])
def test_stop_is_the_command(ran, waits, flags):
    launcher.stop(waits)
    assert ran == [[sys.executable, "-P", "-m", "marserve.cli.torchserve", *flags]]


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Return what the language model launcher asks of a server that ends at once."""
    told = []

    def start(**named):
        config = next(Path(named["model_store"]).rglob("model-config.yaml"), None)
        told.append((named, config and yaml.safe_load(config.read_text())))
        ended = Queue()
        ended.put(None)
        return ended

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(llm, "start", start)
    monkeypatch.setattr(llm, "stop", lambda: told.append("stopped"))
    before = signal.getsignal(signal.SIGTERM)
    yield told
    signal.signal(signal.SIGTERM, before)


def test_the_launcher_fails_when_its_server_ends(served):
    with pytest.raises(SystemExit, match="The server has ended"):
        llm.main(llm.parser().parse_args(["--model_id", "a/b"]))
    (named, config), end = served
    assert (named["models"], config["handler"]["model_path"], end) == ("model", "a/b", "stopped")
    assert list(Path("model_store").iterdir()) == []


def test_a_folder_that_is_there_is_served_and_kept(served, capsys):
    Path("model_store/model").mkdir(parents=True)
    with pytest.raises(SystemExit):
        llm.main(llm.parser().parse_args([]))
    assert "served as it is" in capsys.readouterr().out
    assert served[0][1] is None
    assert Path("model_store/model").is_dir()


def test_tensorrt_llm_builds_its_engine_once(served, ran, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(llm, "download_model", lambda name: f"hub/{name}")
    args = llm.parser().parse_args(["--engine", "trt_llm", "--model_id", "a/b", "--dtype", "float16"])
    with pytest.raises(SystemExit):
        llm.main(args)
    assert served[0][1]["handler"] == {
        **{"tokenizer_dir": str(tmp_path / "hub/a/b"), "engine_dir": "model-engine"},
        "kv_cache_config": {"free_gpu_memory_fraction": 0.1},
    }
    clone, convert, build = ran
    assert clone[:2] == ["git", "clone"]
    assert convert[2:] == [
        *("--model_dir", "hub/a/b", "--output_dir", "model_store/model/tllm_checkpoint_1gpu_bf16"),
        *("--dtype", "float16"),
    ]
    assert build == [
        *("trtllm-build", "--checkpoint_dir", "model_store/model/tllm_checkpoint_1gpu_bf16"),
        *("--output_dir", "model_store/model/model-engine", "--gemm_plugin", "float16"),
        *("--gpt_attention_plugin", "float16", "--max_batch_size", "4"),
    ]
    Path("model_store/model/model-engine").mkdir()
    ran.clear()
    with pytest.raises(SystemExit):
        llm.main(args)
    assert [command[0] for command in ran] == ["git", sys.executable]


def test_the_old_entry_points(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["torchserve", "--version"])
    module("model_server").start()
    assert capsys.readouterr().out.startswith("TorchServe Version is ")
    monkeypatch.setattr(sys, "argv", ["torchserve", "--start"])
    monkeypatch.delenv("TS_CONFIG_FILE", raising=False)
    with pytest.raises(SystemExit, match="1"):
        module("model_server").start()
    parser = module("arg_parser").ArgParser
    assert parser.extract_args(["--start", "--ncs"]).start
    worker = parser.model_service_worker_args().parse_args(["--sock-type", "unix", "--sock-name", "x", "--async"])
    assert (worker.sock_type, worker.sock_name, worker.async_comm) == ("unix", "x", True)
    with pytest.raises(NotImplementedError, match="torchserve --start"):
        module("model_service_worker").TorchModelServiceWorker("unix", "x")
