"""Handlers that stand on libraries which are not here, with stand-ins that note what they are asked for."""

import asyncio
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from ts_modules import asked, context_of, module, reported

from marserve.errors import PredictionException


class Noted:
    """Notes how it was made."""

    def __init__(self, *arguments, **named):
        self.made = (arguments, named)


@pytest.fixture
def install(monkeypatch):
    """Return a function that puts a module of that name, and those above it, into the process."""

    def put(name, **values):
        parts = name.split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[0]))
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**values))

    return put


@pytest.mark.parametrize(
    ("lacks", "use"),
    [
        ("transformers", lambda: module("handler_utils.hf_batch_streamer").TextIteratorStreamerBatch(None, 1)),
        ("huggingface_hub", lambda: module("utils.hf_utils").download_model()),
    ],
)
def test_a_library_that_is_not_there_is_told_with_its_remedy(monkeypatch, lacks, use):
    monkeypatch.setitem(sys.modules, lacks, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {lacks}") as caught:
        use()
    assert caught.value.name == lacks


def test_texts_of_a_batch_come_piece_by_piece(install):
    class Streamer:
        def __init__(self, tokenizer, skip_prompt, timeout, **decoding):
            assert (tokenizer, skip_prompt, timeout, decoding) == ("tokenizer", True, 5.0, {"clean": True})
            self.pieces = []

        def put(self, value):
            self.pieces.append(f"{value.item()} ")

        def end(self):
            self.pieces.append(None)

        def __iter__(self):
            return iter(lambda: self.pieces.pop(0), None)

    install("transformers", TextIteratorStreamer=Streamer)
    batch = module("handler_utils.hf_batch_streamer").TextIteratorStreamerBatch("tokenizer", 2, True, 5.0, clean=True)
    batch.put(torch.tensor([1, 2]))
    batch.put(torch.tensor([3, 4]))
    batch.end()
    assert list(batch) == [[{"text": "1 "}, {"text": "2 "}], [{"text": "3 "}, {"text": "4 "}]]
    with pytest.raises(ValueError, match="of 2 sequences"):
        batch.put(torch.tensor([1]))


def test_weights_are_fetched_from_the_hub(install):
    asked_for = {}
    install("huggingface_hub", snapshot_download=lambda **named: asked_for.update(named) or "folder")
    assert module("utils.hf_utils").download_model("a/b", use_auth_token="t") == "folder"
    assert "*.safetensors" in asked_for.pop("allow_patterns")
    assert asked_for == {"repo_id": "a/b", "revision": "main", "cache_dir": ".cache", "token": "t"}


class Arguments(SimpleNamespace):
    """Stands for vLLM's engine arguments."""

    def __init__(self, model):
        super().__init__(model=model, served_model_name=None, max_num_seqs=1)


class Engine:
    @classmethod
    def from_engine_args(cls, arguments):
        engine = cls()
        engine.arguments = arguments
        return engine

    async def get_model_config(self):
        return "config"


class Answer(SimpleNamespace):
    def model_dump(self):
        return vars(self)


class Refusal(Answer):
    pass


class Request(SimpleNamespace):
    @classmethod
    def model_validate(cls, body):
        return cls(**{"stream": False, **body})


class Endpoint(Noted):
    async def show_available_models(self):
        return Answer(data=["lm"])

    async def create_completion(self, request, raw):
        assert not await raw.is_disconnected()
        if request.prompt == "refused":
            return Refusal(code=400)
        if not request.stream:
            return Answer(text=request.prompt)

        async def pieces():
            for piece in ("data: a\n\n", "data: b\n\n", "data: [DONE]\n\n"):
                yield piece

        return pieces()

    create_chat_completion = create_completion


@pytest.fixture
def vllm(install, tmp_path):
    """Return a handler on a stand-in for vLLM, and its context."""
    install("vllm.entrypoints.openai.serving_engine", LoRAModulePath=lambda name, path: (name, path))
    install("vllm.entrypoints.openai.serving_completion", OpenAIServingCompletion=Endpoint)
    install("vllm.entrypoints.openai.serving_chat", OpenAIServingChat=Endpoint)
    kinds = {"CompletionRequest": Request, "ChatCompletionRequest": Request, "ErrorResponse": Refusal}
    install("vllm.entrypoints.openai.protocol", **kinds)
    install("vllm", AsyncLLMEngine=Engine, AsyncEngineArgs=Arguments)
    (tmp_path / "weights").mkdir()
    config = {
        "model_path": "weights",
        "vllm_engine_config": {"max_num_seqs": 8, "unheard_of": 1},
        "adapters": {"lora": "path"},
        "chat_template": "template",
    }
    context = context_of(tmp_path, config={"handler": config})
    handler = module("torch_handler.vllm_handler").VLLMHandler()
    handler.initialize(context)
    return handler, context


def handle(handler, context, path, body):
    """Return the answer to one request, and the pieces that were sent before it."""
    sent = []
    asked(context, b"url_path", path.encode())
    context.send_intermediate = lambda values, status: sent.append((values, status))
    return asyncio.run(handler.handle([{"body": body}], context)), sent


def test_the_engine_of_vllm_is_made_as_the_model_s_configuration_says(vllm, tmp_path, caplog):
    handler, context = vllm
    handler.initialize(context)
    assert vars(handler.vllm_engine.arguments) == {
        **{"model": str(tmp_path / "weights"), "served_model_name": None, "max_num_seqs": 8}
    }
    common = (handler.vllm_engine, "config", [str(tmp_path / "weights")])
    more = {"lora_modules": [("lora", "path")], "prompt_adapters": None, "request_logger": None}
    assert handler.completion_service.made == (common, more)
    chat = ((*common, "assistant"), {**more, "chat_template": "template"})
    assert handler.chat_completion_service.made == chat
    assert "no engine argument 'unheard_of'" in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("v1/completions", b'{"prompt": "x"}', {"text": "x"}),
        ("v1/chat/completions", {"prompt": "x"}, {"text": "x"}),
        ("v1/completions", {"prompt": "refused", "stream": True}, {"code": 400}),
        ("v1/models", None, {"data": ["lm"]}),
    ],
)
def test_the_endpoints_of_vllm(vllm, path, body, answer):
    handler, context = vllm
    assert handle(handler, context, path, body) == ([answer], [])
    assert "HandlerTime" in reported(context)


def test_an_answer_of_vllm_is_streamed(vllm):
    answer, sent = handle(*vllm, "v1/completions", {"prompt": "x", "stream": True})
    assert answer == ["data: [DONE]\n\n"]
    assert sent == [({0: "data: a\n\n"}, 200), ({0: "data: b\n\n"}, 200)]


def test_vllm_refuses_other_endpoints_and_batches(vllm):
    handler, context = vllm
    with pytest.raises(PredictionException, match="Unknown API endpoint: v2") as caught:
        handle(handler, context, "v2", {})
    assert caught.value.error_code == 404
    with pytest.raises(ValueError, match="set batchSize to 1"):
        asyncio.run(handler.handle([{}, {}], context))


def test_vllm_takes_a_model_of_the_hub_and_refuses_none(vllm):
    handler, context = vllm
    context.model_yaml_config["handler"] = {"model_path": "a/b"}
    handler.initialize(context)
    assert handler.vllm_engine.arguments.model == "a/b"
    context.model_yaml_config["handler"] = {}
    with pytest.raises(ValueError, match="please define model in vllm_engine_config"):
        handler.initialize(context)


def test_tensorrt_llm(install, tmp_path):
    class Tokenizer(SimpleNamespace):
        @classmethod
        def from_pretrained(cls, folder, **named):
            return cls(folder=folder, pad_token_id=None, eos_token_id=2)

        def decode(self, tokens):
            return f"<{tokens[0]}>"

    class LLM(Noted):
        async def generate_async(self, prompt, streaming, sampling_params):
            self.sampling = sampling_params.made[1]
            for count in (1, 2) if streaming else (2,):
                yield SimpleNamespace(outputs=[SimpleNamespace(text=prompt.upper(), token_ids=list(range(count)))])

    install("transformers", AutoTokenizer=Tokenizer)
    install("tensorrt_llm.hlapi", LLM=LLM, KvCacheConfig=Noted, SamplingParams=Noted)
    config = {"engine_dir": "engine", "tokenizer_dir": "words", "kv_cache_config": {"free_gpu_memory_fraction": 0.1}}
    context = context_of(tmp_path, config={"handler": config})
    handler = module("torch_handler.trt_llm_handler").TRTLLMHandler()
    handler.initialize(context)

    made = handler.trt_llm_engine.made[1]
    assert (made["model"], made["tokenizer"].folder) == ("engine", "words")
    assert made["kv_cache_config"].made[1] == {"free_gpu_memory_fraction": 0.1}
    assert handle(handler, context, "", b'{"prompt": "x", "top_k": 3}') == (["X"], [])
    assert handler.trt_llm_engine.sampling == {"end_id": 2, "pad_id": 2, "top_k": 3}
    answer, sent = handle(handler, context, "", {"prompt": "x", "streaming": True})
    assert answer == [""]
    assert sent == [({0: '{"text": "<0>"}'}, 200), ({0: '{"text": "<1>"}'}, 200)]
    for wrong in ([{"body": b"[1]"}], [{}, {}]):
        with pytest.raises(ValueError, match="Expect"):
            asyncio.run(handler.handle(wrong, context))


def test_deepspeed_is_put_around_a_model(install, tmp_path, monkeypatch):
    install("deepspeed", init_inference=lambda model, **named: (model, named))
    engine = module("handler_utils.distributed.deepspeed").get_ds_engine
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_text("")
    config = {"handler": {"model_path": str(tmp_path / "weights")}}
    context = context_of(tmp_path, config=config)
    with pytest.raises(ValueError, match="has no deepspeed config in"):
        engine("model", context)
    config["deepspeed"] = {"config": "ds.json", "checkpoint": "list.json"}
    with pytest.raises(ValueError, match="has no deepspeed config file"):
        engine("model", context)
    (tmp_path / "ds.json").write_text("{}")
    assert engine("model", context) == (
        "model",
        {
            "config": str(tmp_path / "ds.json"),
            "base_dir": str(tmp_path / "weights"),
            "checkpoint": str(tmp_path / "list.json"),
        },
    )
    assert json.loads((tmp_path / "list.json").read_text())["checkpoints"] == [str(tmp_path / "weights" / "w.bin")]
    monkeypatch.setenv("LOCAL_RANK", "3")
    handler = module("torch_handler.distributed.base_deepspeed_handler").BaseDeepSpeedHandler()
    handler.initialize(context)
    assert handler.device == 3


def test_a_pipeline_of_pippy(install, tmp_path):
    model = torch.nn.Linear(1, 1)
    config = {"pippy": {"input_names": ["input"], "model_type": "HF"}, "handler": {"model_path": str(tmp_path)}}
    context = context_of(tmp_path, config=config)
    pipeline = module("handler_utils.distributed.pt_pippy").get_pipeline_driver
    injected = []

    def compiled(given, **named):
        assert given is model
        assert (named["num_ranks"], named["num_chunks"], named["split_policy"]) == (2, 1, "halves")
        assert named["concrete_args"] == {}
        return "driver", None

    install("pippy.hf", PiPPyHFTracer=Noted, inject_pipeline_forward=lambda *given: injected.append(given))
    install("pippy", all_compile=compiled, split_into_equal_size={2: "halves"}.get)
    assert pipeline(model, 2, context) is model
    assert injected == [(model, "driver")]
    config["pippy"]["model_type"] = "other"
    assert pipeline(model, 2, context) == "driver"
    config["handler"]["index_filename"] = "gone.json"
    with pytest.raises(ValueError, match=r"Index file '.*gone.json' not found"):
        pipeline(model, 2, context)
    del config["pippy"]["input_names"]
    with pytest.raises(ValueError, match=r"has no pippy\.input_names"):
        pipeline(model, 2, context)


def test_the_processes_of_pippy_join_by_rpc(install, tmp_path, monkeypatch):
    joined = {}

    class Options(Noted):
        def __init__(self, **named):
            super().__init__(**named)
            self.maps = {}

        def set_device_map(self, name, devices):
            self.maps[name] = devices

    rpc = SimpleNamespace(
        TensorPipeRpcBackendOptions=Options, init_rpc=lambda name, **named: joined.update(name=name, **named)
    )
    monkeypatch.setitem(sys.modules, "torch.distributed.rpc", rpc)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    context = context_of(tmp_path, config={"pippy": {"rpc_timeout": 9, "num_worker_threads": 3}})
    handler = module("torch_handler.distributed.base_pippy_handler").BasePippyHandler()
    handler.initialize(context)
    options = joined.pop("rpc_backend_options")
    assert (handler.device, joined) == (1, {"name": "worker1", "rank": 1, "world_size": 2})
    assert options.made[1] == {"num_worker_threads": 3, "rpc_timeout": 9}
    assert options.maps == {"worker0": {1: 0}, "worker1": {1: 1}}


def test_images_that_dali_prepares(install, tmp_path, monkeypatch):
    class Prepared:
        def at(self, index):
            return torch.eye(3)[index].numpy() * 9

    class Pipeline:
        def __init__(self, **named):
            self.made = named

        @classmethod
        def deserialize(cls, **named):
            return cls(**named)

        def run(self, source):
            assert [array.tolist() for array in source] == [[1, 2], [3]]
            return (Prepared(),)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def set_outputs(self, output):
            self.output = output

    steps = SimpleNamespace(image=lambda *_, **__: "decoded")
    install(
        "nvidia.dali.fn",
        **{"external_source": Noted, "resize": Noted, "decoders": steps, "crop_mirror_normalize": Noted},
    )
    install("nvidia.dali.types", UINT8="bytes", DALIInterpType=SimpleNamespace(INTERP_LINEAR="linear"))
    install("nvidia.dali.pipeline", Pipeline=Pipeline)
    monkeypatch.setitem(sys.modules, "nvidia.dali", SimpleNamespace(Pipeline=Pipeline))
    sizes = {"batch_size": 2, "num_threads": 1, "device_id": 0, "seed": 7}
    config = {"dali": dict(sizes)}
    cls = module("torch_handler.dali_image_classifier").DALIImageClassifier
    monkeypatch.setattr(cls, "_load_weights", lambda self, path: torch.nn.Identity())
    handler = cls()
    context = context_of(tmp_path, config=config, serializedFile="model.pt")
    handler.initialize(context)
    assert handler.pipeline.made == {"prefetch_queue_depth": 1, **sizes}
    assert handler.pipeline.output.made[1]["crop"] == (224, 224)
    handler.set_max_result_classes(1)
    assert [list(answer) for answer in handler.handle([{"body": b"\1\2"}, {"data": b"\3"}], context)] == [
        ["0"],
        ["1"],
    ]

    config["dali"]["pipeline_file"] = "own.dali"
    with pytest.raises(RuntimeError, match="Missing dali pipeline file"):
        handler.initialize(context)
    (tmp_path / "own.dali").write_text("")
    handler.initialize(context)
    assert handler.pipeline.made == {"filename": str(tmp_path / "own.dali"), "prefetch_queue_depth": 1, **sizes}
    del config["dali"]
    with pytest.raises(ValueError, match="has no dali config"):
        handler.initialize(context)
