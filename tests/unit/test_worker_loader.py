"""The service is found in an archive, in every form that authors write, and made ready."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from marserve.archive.manifest import Manifest
from marserve.errors import LoadError, OutOfMemory
from marserve.service.context import Context, RequestInfo
from marserve.worker.batch import run_batch
from marserve.worker.loader import COMPAT, TEMPLATES, load_entry, stand_in
from marserve.worker.steps import STEPS, NoSteps, timed_whole


class RecordedSteps(NoSteps):
    def __init__(self):
        super().__init__()
        self.seen = []

    def enter(self, step):
        self.seen.append(f"+{STEPS[step]}")

    def leave(self, step):
        self.seen.append(f"-{STEPS[step]}")


@pytest.fixture
def steps():
    return RecordedSteps()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An archive's folder that the process stands in; modules and paths are put back afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    stand_in(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))


def load(folder, steps, handler="svc.py", **more):
    context = Context("m", str(folder), {}, 2)
    entry = load_entry(folder, Manifest(), handler, context, steps, **more)
    return entry, context


def answer(entry, context, steps, body=b'"x"'):
    jobs = [RequestInfo("id", [], (), [(b"body", b"application/json", body)])]
    (outcome,) = run_batch(entry, context, jobs, "native", steps)
    return outcome.error or outcome.body


CLASS = """
    class Anything:
        def initialize(self, context):
            self.name = context.model_name
        def handle(self, data, context):
            return [f"{self.name}: {row['body']}" for row in data]
"""


@pytest.mark.parametrize("handler", ["svc", "svc.py", "some/folder/svc.py", "svc:absent"])
def test_a_class_that_does_not_inherit_from_ours(folder, steps, handler):
    write(folder, svc=CLASS)
    entry, context = load(folder, steps, handler)
    assert answer(entry, context, steps) == b"m: x"
    assert entry.check is None
    assert entry.describe == "class Anything of svc"


def test_the_manifests_handler_is_taken_when_none_is_given(folder, steps):
    write(folder, svc=CLASS)
    entry = load_entry(folder, Manifest(handler="svc.py"), "", Context("m", str(folder), {}), steps)
    assert entry.describe == "class Anything of svc"


@pytest.mark.parametrize(
    ("handler", "name"), [("svc.py", "handle"), ("svc:other", "other"), ("svc.py:other", "other")]
)
def test_a_function_is_called_once_without_data(folder, steps, handler, name):
    write(
        folder,
        svc=f"""
            calls = []
            class Ignored:
                def handle(self, data, context): ...
            def {name}(data, context):
                calls.append(data)
                return [len(calls)] if data else None
        """,
    )
    entry, context = load(folder, steps, handler)
    assert sys.modules["svc"].calls == [None]
    assert answer(entry, context, steps) == b"2"
    assert entry.describe == f"function {name} of svc"


def test_a_class_may_be_named(folder, steps):
    write(folder, svc=CLASS + "    class Other(Anything):\n        pass\n    class Third(Anything):\n        pass\n")
    entry, _ = load(folder, steps, "svc:Other")
    assert entry.describe == "class Other of svc"


def test_helpers_imports_and_bases_beside_the_service_do_not_count(folder, steps):
    write(
        folder,
        svc="""
            from collections import OrderedDict
            from other import Imported
            class Helper:
                pass
            class Base:
                def handle(self, data, context):
                    return ["base"]
            class Real(Base):
                def handle(self, data, context):
                    return ["real"]
        """,
        other="class Imported:\n    def handle(self, data, context): ...",
    )
    entry, context = load(folder, steps)
    assert answer(entry, context, steps) == b"real"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "no function handle(data, context) and no class with that method (none)"),
        ("class A: ...", "with that method (A)"),
        (
            "class A:\n    def handle(self, d, c): ...\nclass B:\n    def handle(self, d, c): ...",
            "several services (A, B)",
        ),
    ],
)
def test_no_service_or_several_are_refused(folder, steps, text, said):
    write(folder, svc=text)
    with pytest.raises(LoadError) as caught:
        load(folder, steps)
    assert "Expected only one class" in caught.value.message
    assert said in caught.value.message


def test_a_named_class_without_the_methods_is_refused(folder, steps):
    write(folder, svc="class A: ...")
    with pytest.raises(LoadError, match="neither handle"):
        load(folder, steps, "svc:A")


THREE = """
    class Three:
        def preprocess(self, data):
            return [row["body"] for row in data]
        def inference(self, data):
            return [text * 2 for text in data]
        def postprocess(self, data):
            return data
"""


def test_three_steps_make_a_handle_and_are_told(folder, steps):
    write(folder, svc=THREE)
    entry, context = load(folder, steps)
    assert answer(entry, context, steps) == b"xx"
    names = ("decode", "preprocess", "inference", "postprocess", "encode")
    assert steps.seen == [f"{sign}{name}" for name in names for sign in "+-"]


def test_steps_are_told_whoever_calls_them_and_closed_when_they_raise(folder, steps):
    write(
        folder,
        svc=THREE
        + """
        def handle(self, data, context):
            return self.inference(data=self.preprocess(data))
    class Four(Three):
        def inference(self, data):
            return super().inference(data) + [1 / 0]
    """,
    )
    entry, context = load(folder, steps)
    failure = answer(entry, context, steps)
    assert "ZeroDivisionError" in failure.message
    assert failure.traceback.count("File ") == 2  # handle and inference, nothing of ours between them
    assert steps.seen == [f"{sign}{name}" for name in ("decode", "preprocess", "inference") for sign in "+-"]


def test_what_a_handle_spends_outside_of_its_steps_is_told_as_inference(monkeypatch):
    moments = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr("marserve.worker.steps.time.perf_counter", lambda: next(moments))
    steps = NoSteps()

    def handle(data, context):
        steps.spans[2] += data
        return "ok"

    handle = timed_whole(handle, steps)
    steps.spans[0] = steps.spans[5] = 7.0
    assert handle(0.5, None) == "ok"
    assert steps.spans == [7.0, 0.0, 0.5, 2.5, 0.0, 7.0]
    handle(1.5, None)  # threads of its own overlap: more time in steps than there was
    assert steps.spans == [7.0, 0.0, 2.0, 2.5, 0.0, 7.0]


def test_a_class_with_slots_is_served_without_spans(folder, steps):
    write(folder, svc=THREE.replace("class Three:", "class Three:\n        __slots__ = ()"))
    entry, context = load(folder, steps)
    assert steps.seen == []
    assert answer(entry, context, steps) == b"xx"


def test_initialize_without_an_argument_is_tolerated(folder, steps):
    write(
        folder,
        svc="""
            class Old:
                def initialize(self):
                    self.name = "old"
                def handle(self, data, context):
                    return [self.name]
        """,
    )
    entry, context = load(folder, steps)
    assert answer(entry, context, steps) == b"old"


def test_siblings_and_relative_files_are_found(folder, steps):
    (folder / "labels.txt").write_text("cat")
    write(
        folder,
        svc="""
            from pathlib import Path
            import sibling
            from package.inner import VALUE
            def handle(data, context):
                return [Path("labels.txt").read_text() + sibling.VALUE + VALUE]
        """,
        sibling="VALUE = 's'",
    )
    (folder / "package").mkdir()
    (folder / "package" / "inner.py").write_text("VALUE = 'i'")
    entry, context = load(folder, steps)
    assert answer(entry, context, steps) == b"catsi"


def test_a_dotted_handler_lies_in_a_folder(folder, steps):
    (folder / "inner").mkdir()
    (folder / "inner" / "svc.py").write_text(dedent(CLASS))
    entry, context = load(folder, steps, "inner.svc")
    assert answer(entry, context, steps) == b"m: x"


def test_a_file_named_as_a_loaded_module_is_served_and_replaces_nothing(folder, steps):
    import json

    write(folder, json=CLASS)
    entry, context = load(folder, steps, "json.py")
    assert answer(entry, context, steps) == b"m: x"
    assert sys.modules["json"] is json


def test_a_missing_handler_is_told_with_what_is_there(folder, steps):
    write(folder, other="")
    with pytest.raises(LoadError) as caught:
        load(folder, steps, "absent.py")
    assert "'absent.py' is no Python file of the archive (these are: other.py)" in caught.value.message
    assert "onnx_service, torch_service" in caught.value.message
    with pytest.raises(LoadError, match="names no handler"):
        load(folder, steps, "")


@pytest.mark.parametrize(
    ("text", "message", "traceback"),
    [
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'", "import no_such_thing"),
        ("from os import no_such_name", "ImportError: cannot import name", "from os import no_such_name"),
        ("def f(:\n", "SyntaxError", "def f(:"),
        ("1 / 0", "ZeroDivisionError", "1 / 0"),
        ("raise SystemExit(3)", "SystemExit: 3", "raise SystemExit(3)"),
        ("def handle(data, context):\n    return data[0]", "TypeError", "return data[0]"),
        ("class A:\n    def __init__(self, x): ...\n    def handle(self, d, c): ...", "TypeError: A.__init__()", ""),
        (
            "class A:\n    def handle(self, d, c): ...\n    def initialize(self, c):\n        raise KeyError('w')",
            "KeyError: 'w'",
            "raise KeyError('w')",
        ),
    ],
)
def test_what_the_authors_code_raises_is_shown_truly(folder, steps, text, message, traceback):
    write(folder, svc=text)
    with pytest.raises(LoadError) as caught:
        load(folder, steps)
    assert message in caught.value.message
    assert traceback in caught.value.traceback
    assert "marserve/worker/" not in caught.value.traceback
    assert "importlib" not in caught.value.traceback
    assert caught.value.hint


def test_a_file_outside_the_archive_is_no_handler(folder, steps):
    inner = folder / "inner"
    inner.mkdir()
    write(folder, svc=CLASS)
    stand_in(inner)
    sys.path.remove(str(folder))
    for handler in ("../svc.py", f"{folder}/svc.py"):
        with pytest.raises(LoadError, match="is no Python file of the archive"):
            load(inner, steps, handler)


def test_multi_model_server_takes_a_handler_from_outside(folder, steps, monkeypatch):
    inner = folder / "inner"
    inner.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(folder, outside="def handle(data, context):\n    return ['outside'] * len(data or ())")
    stand_in(inner)

    entry, _ = load(inner, steps, f"{folder}/outside.py:handle", style="mms")

    assert entry.handle([{}], None) == ["outside"]


def test_a_missing_module_is_named_in_the_hint(folder, steps):
    write(folder, svc="import no_such_thing")
    with pytest.raises(LoadError) as caught:
        load(folder, steps)
    assert "'no_such_thing'" in caught.value.hint


@pytest.mark.parametrize("raised", ["MemoryError()", "RuntimeError('CUDA error: initialization')"])
def test_a_lack_of_memory_is_told_apart(folder, steps, raised):
    write(folder, svc=f"def handle(data, context):\n    raise {raised}")
    with pytest.raises(OutOfMemory, match=r"while svc\.py was loaded"):
        load(folder, steps)


OURS = """
    from marserve import InvalidData, Service
    class Ours(Service):
        def postprocess(self, data):
            return [self.value(row, "n") + 1 for row in data]
"""
SIGNATURE = """{"inputs": [{"name": "n", "shape": [], "data_type": "int64", "maximum": 9}],
    "outputs": [{"name": "body", "shape": [], "data_type": "int64"}]}"""


def test_the_signature_checks_requests_of_our_services(folder, steps):
    write(folder, svc=OURS)
    (folder / "signature.json").write_text(SIGNATURE)
    entry, context = load(folder, steps)
    assert answer(entry, context, steps, b'{"n": 9}') == b"10"
    failure = answer(entry, context, steps, b'{"n": 10}')
    assert failure.kind == "InvalidData"
    assert failure.message == "input 'n': expected a single int64 up to 9, got 10."
    assert entry.service.output_names == ["body"]


def test_without_a_signature_nothing_is_checked(folder, steps):
    write(folder, svc=OURS)
    entry, _ = load(folder, steps)
    assert entry.check is None


def test_a_signature_in_the_form_of_mms_refuses_nothing(folder, steps):
    write(folder, svc=OURS)
    (folder / "signature.json").write_text('{"inputs": [{"data_name": "n", "data_shape": [1, 10]}]}')
    entry, context = load(folder, steps)
    assert answer(entry, context, steps, b'{"n": 9}') == b"10"


def test_a_signature_refuses_nothing_of_services_that_are_not_ours(folder, steps):
    write(folder, svc=CLASS)
    (folder / "signature.json").write_text(SIGNATURE)
    entry, context = load(folder, steps)
    assert answer(entry, context, steps) == b"m: x"


def test_the_authors_check_takes_the_signatures_place(folder, steps):
    write(
        folder,
        svc=OURS
        + """
        def check(self, item):
            if item["body"]["n"] == 13:
                raise InvalidData("not thirteen")
    """,
    )
    entry, context = load(folder, steps)
    assert answer(entry, context, steps, b'{"n": 13}').message == "not thirteen"
    assert answer(entry, context, steps, b'{"n": 14}') == b"15"


def test_a_check_of_another_meaning_is_left_alone(folder, steps):
    write(folder, svc=CLASS + "        def check(self):\n            return 'healthy'\n")
    entry, context = load(folder, steps)
    assert answer(entry, context, steps) == b"m: x"


@pytest.mark.parametrize("handler", ["onnx_service", "marserve.service.onnx:OnnxService"])
def test_a_built_in_service_needs_no_file(folder, steps, handler):
    with pytest.raises(LoadError, match=r"holds 0 files ending in \.onnx"):
        load(folder, steps, handler)


def test_modules_beside_the_built_in_handlers_of_torchserve_serve_too(folder, steps):
    with pytest.raises(LoadError, match="vision_handler cannot be loaded: KeyError: 'model'"):
        load(folder, steps, "vision_handler")
    with pytest.raises(LoadError, match="no Python file of the archive"):
        load(folder, steps, "vision_handler", style="mms")


def test_an_envelope_is_put_around_the_service(folder, steps):
    write(folder, svc="def handle(data, context):\n    return data and [value * 2 for value in data]")
    entry, context = load(folder, steps, envelope="json")
    assert answer(entry, context, steps, b'{"instances": [1, 2]}') == b'{"predictions":[2,4]}'
    with pytest.raises(LoadError, match="no envelope 'odd'"):
        load(folder, steps, envelope="odd")


def test_standing_in_a_folder_puts_it_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["first", str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    stand_in(tmp_path)
    assert sys.path == [str(tmp_path), COMPAT, "first", TEMPLATES]
    assert Path.cwd() == tmp_path.resolve()


@pytest.mark.parametrize(("handler", "lacks"), [("vllm_handler", "vllm"), ("trt_llm_handler", "tensorrt_llm")])
def test_a_built_in_handler_says_what_to_install(folder, steps, monkeypatch, handler, lacks):
    monkeypatch.setitem(sys.modules, lacks, None)
    with pytest.raises(LoadError, match=f"pip install {lacks}==") as caught:
        load(folder, steps, handler)
    assert caught.value.hint.startswith(f"Put '{lacks}")


def test_an_old_name_that_is_not_there_is_told_as_ours(folder, steps):
    write(folder, svc="import ts.no_such_module\n")
    with pytest.raises(LoadError) as caught:
        load(folder, steps)
    assert "marserve has no 'ts.no_such_module'" in caught.value.hint
