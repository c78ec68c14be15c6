"""``python -m ts.llm_launcher``: serves a language model with no archive to be made first.

It writes a model folder with one of the two handlers of language models, starts the server, and ends with it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from .launcher import start, stop
from .utils.hf_utils import download_model

_ENGINES = ("vllm", "trt_llm")
_CHECKPOINT = "tllm_checkpoint_1gpu_bf16"
_TENSORRT_LLM = "https://github.com/NVIDIA/TensorRT-LLM.git"
_TENSORRT_LLM_RELEASE = "v0.12.0"


def get_model_config(args: argparse.Namespace, model_snapshot_path: Optional[str] = None) -> Dict[str, Any]:
    """Return the ``model-config.yaml`` for the parsed flags.

    Args:
        args: see ``parser``.
        model_snapshot_path: folder of the tokenizer; TensorRT-LLM alone needs it.
    """
    config: Dict[str, Any] = {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
        "responseTimeout": 1200,
        "startupTimeout": args.startup_timeout,
        "deviceType": "gpu",
        "asyncCommunication": True,
    }
    if args.engine == "trt_llm":
        fraction = getattr(args, "trt_llm_engine.kv_cache_free_gpu_memory_fraction")
        config["handler"] = {
            "tokenizer_dir": str(Path(model_snapshot_path or "").resolve()),
            "engine_dir": f"{args.model_name}-engine",
            "kv_cache_config": {"free_gpu_memory_fraction": fraction},
        }
        return config
    download_dir = getattr(args, "vllm_engine.download_dir")
    config["parallelLevel"] = _gpu_count()
    config["handler"] = {
        "model_path": args.model_id,
        "vllm_engine_config": {
            "max_num_seqs": getattr(args, "vllm_engine.max_num_seqs"),
            "max_model_len": getattr(args, "vllm_engine.max_model_len"),
            "download_dir": str(Path(download_dir).resolve()) if download_dir else download_dir,
            "tensor_parallel_size": _gpu_count(),
        },
    }
    return config


def _gpu_count() -> int:
    """Return how many GPUs there are, and 1 without any: neither setting can be 0."""
    try:
        import torch
    except ImportError:
        return 1
    return torch.cuda.device_count() or 1


@contextmanager
def create_mar_file(args: argparse.Namespace, model_snapshot_path: Optional[str] = None) -> Iterator[str]:
    """Write the model's folder into the store and yield its path.

    A folder that is there already is served as it is. The new one is deleted at the end, but for TensorRT-LLM's,
    whose engine takes long to build.
    """
    import yaml

    from marserve.cli.torch_archiver import ModelArchiverConfig, pack_model

    folder = Path(args.model_store, args.model_name)
    is_new = not folder.exists()
    if is_new:
        with tempfile.TemporaryDirectory() as place:
            config_file = Path(place, "model-config.yaml")
            config_file.write_text(yaml.safe_dump(get_model_config(args, model_snapshot_path)), encoding="utf-8")
            model = ModelArchiverConfig(
                model_name=args.model_name,
                handler=f"{args.engine}_handler",
                version="1.0",
                export_path=args.model_store,
                archive_format="no-archive",
                config_file=str(config_file),
            )
            pack_model(model)
    else:
        print(f"{folder} is there already: it is served as it is, and kept.", flush=True)
    try:
        yield folder.as_posix()
    finally:
        if is_new and args.engine != "trt_llm":
            shutil.rmtree(folder)


def create_tensorrt_llm_engine(
    model_store: str, model_name: str, dtype: str, snapshot_path: str, max_batch_size: int
) -> None:
    """Build TensorRT-LLM's engine in the model's folder, as far as it is not there.

    Raises:
        subprocess.CalledProcessError: a step failed; it has printed why.
    """
    sources = Path.home() / ".cache" / "TensorRT-LLM"
    checkpoint = Path(model_store, model_name, _CHECKPOINT)
    engine = Path(model_store, model_name, f"{model_name}-engine")
    convert = [sys.executable, str(sources / "examples" / "llama" / "convert_checkpoint.py")]
    convert += _flags(model_dir=snapshot_path, output_dir=str(checkpoint), dtype=dtype)
    build = ["trtllm-build", *_flags(checkpoint_dir=str(checkpoint), output_dir=str(engine))]
    build += _flags(gemm_plugin=dtype, gpt_attention_plugin=dtype, max_batch_size=str(max_batch_size))
    clone = ["git", "clone", _TENSORRT_LLM, "-b", _TENSORRT_LLM_RELEASE, str(sources)]
    steps = {sources: clone, checkpoint: convert, engine: build}
    for made, command in steps.items():
        if not made.exists():
            subprocess.run(command, check=True)


def _flags(**named: str) -> List[str]:
    return [word for name, value in named.items() for word in (f"--{name}", value)]


def main(args: argparse.Namespace) -> None:
    """Serve until the server ends, which is an error, or this process is interrupted or told to end."""
    Path(args.model_store).mkdir(parents=True, exist_ok=True)
    # Ending leaves by way of the same exception, so that the server is stopped and the folder deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    snapshot = download_model(args.model_id) if args.engine == "trt_llm" else None
    try:
        with create_mar_file(args, snapshot):
            if snapshot is not None:
                batch = getattr(args, "trt_llm_engine.max_batch_size")
                create_tensorrt_llm_engine(args.model_store, args.model_name, args.dtype, snapshot, batch)
            try:
                lines = start(
                    model_store=args.model_store,
                    no_config_snapshots=True,
                    models=args.model_name,
                    disable_token=args.disable_token_auth,
                )
                while lines.get() is not None:
                    pass
            finally:
                stop()
    except KeyboardInterrupt:
        return
    sys.exit("The server has ended; the lines above tell why.")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags; those of an engine keep the dot of their names."""
    flags = argparse.ArgumentParser(
        prog="python -m ts.llm_launcher",
        description="Serves a language model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--model_name", default="model", help="name of the model in requests")
    flags.add_argument("--model_store", default="model_store", help="folder that the model's folder is written to")
    flags.add_argument("--model_id", default="meta-llama/Meta-Llama-3.1-8B-Instruct", help="name on Hugging Face")
    flags.add_argument("--disable_token_auth", action="store_true", help="ask for no token")
    flags.add_argument("--startup_timeout", type=int, default=1200, help="longest load of the model, seconds")
    flags.add_argument("--engine", choices=_ENGINES, default="vllm", help="what runs the model")
    flags.add_argument("--dtype", default="bfloat16", help="type of TensorRT-LLM's weights")
    flags.add_argument("--vllm_engine.max_num_seqs", type=int, default=256, help="most requests at once")
    flags.add_argument("--vllm_engine.max_model_len", type=int, help="longest prompt and answer, tokens")
    flags.add_argument("--vllm_engine.download_dir", help="folder that keeps the weights")
    flags.add_argument("--trt_llm_engine.max_batch_size", type=int, default=4, help="most requests at once")
    flags.add_argument(
        "--trt_llm_engine.kv_cache_free_gpu_memory_fraction",
        type=float,
        default=0.1,
        help="part of the free GPU memory that the cache takes",
    )
    return flags


if __name__ == "__main__":
    main(parser().parse_args())
