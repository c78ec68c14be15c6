"""An archive without a server behaves as it does in a worker, and leaves the process as it was."""

import os
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

import marserve
from marserve.errors import ArchiveError, HandlerFault, InvalidData, LoadError, PredictionException
from marserve.worker.local import load

SIGNATURE = """{"inputs": [{"name": "n", "shape": [], "data_type": "int64"}],
    "outputs": [{"name": "body", "shape": [], "data_type": "json"}]}"""
SERVICE = """
    from pathlib import Path
    from marserve import PredictionException, Service
    from sibling import WORD

    class Plus(Service):
        def initialize(self, context):
            super().initialize(context)
            self.label = Path("label.txt").read_text()
        def handle(self, data, context):
            import late
            self.batches = getattr(self, "batches", []) + [len(data)]
            return [self.one(self.value(row, "n"), index) for index, row in enumerate(data)]
        def one(self, n, index):
            if n == 13:
                return PredictionException("unlucky", 418)
            if n == 666:
                raise RuntimeError("hell")
            explain = self.context.get_request_header(index, "explain")
            header = self.context.get_request_header(index, "x-who")
            return {"next": n + 1, "said": [self.label, WORD, explain, header]}
"""


def write(folder, service=SERVICE, **files):
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(
        '{"createdOn": "x", "model": {"modelName": "plus", "handler": "svc.py", "configFile": "config.yaml"}}'
    )
    found = {"svc.py": dedent(service), "sibling.py": "WORD = 'w'", "late.py": "", "label.txt": "l"}
    found.update({"signature.json": SIGNATURE, "config.yaml": "handler:\n  level: 3\n"})
    found.update(files)
    for name, text in found.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch):
    """No test may leave a module, a path or another working directory behind."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = os.getcwd(), list(sys.path)
    yield
    assert (os.getcwd(), sys.path) == before
    assert not {"svc", "sibling", "late"} & set(sys.modules)


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / "plus")


def zipped(folder):
    path = folder.with_suffix(".mar")
    with zipfile.ZipFile(path, "w") as out:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                out.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped, lambda folder: str(zipped(folder))])
def test_a_prediction_as_a_client_sees_it(archive, pack):
    with marserve.load(pack(archive)) as loaded:
        assert loaded.predict({"n": 14}) == {"next": 15, "said": ["l", "w", "False", None]}
        assert loaded.predict({"n": np.int64(1)})["next"] == 2
        assert loaded.predict(b'{"n": 2}')["next"] == 3
        assert loaded.predict('{"n": 3}', content_type="application/json")["next"] == 4
        assert loaded.predict({"n": 1}, headers={"X-Who": "me"})["said"][3] == "me"
        assert loaded.explain({"n": 1})["said"][2] == "True"
        assert loaded.manifest.model_name == "plus"
        assert loaded.signature.inputs[0].name == "n"
        assert loaded.context.model_yaml_config == {"handler": {"level": 3}}
        assert type(loaded.service).__name__ == "Plus"


def test_errors_are_raised_as_what_they_are(archive):
    with load(archive) as loaded:
        with pytest.raises(InvalidData, match="'n' is missing"):
            loaded.predict({"m": 1})
        with pytest.raises(PredictionException, match="unlucky") as caught:
            loaded.predict({"n": 13})
        assert caught.value.error_code == 418
        with pytest.raises(HandlerFault, match="RuntimeError: hell") as fault:
            loaded.predict({"n": 666})
        assert 'raise RuntimeError("hell")' in str(fault.value)


def test_a_batch_holds_its_errors_in_their_places(archive):
    with load(archive, batch_size=4) as loaded:
        answers = loaded.predict_batch([{"n": 1}, {"m": 1}, {"n": 13}, {"n": 2}, {"n": 3}])
        assert [type(answer) for answer in answers] == [dict, InvalidData, PredictionException, dict, dict]
        assert [answer["next"] for answer in answers if isinstance(answer, dict)] == [2, 3, 4]
        assert loaded.service.batches == [3, 1]  # the refused one was never seen
        assert loaded.predict_batch([]) == []
    with pytest.raises(ValueError, match="batch_size is 0"):
        load(archive, batch_size=0)


def test_bytes_and_text_come_back_as_themselves(tmp_path):
    service = "def handle(data, context):\n    return data and [row['body'] for row in data]"
    with load(write(tmp_path / "echo", service)) as loaded:
        assert loaded.predict(b"\x00\xff") == b"\x00\xff"
        assert loaded.predict("grün") == "grün"
        assert loaded.predict(None) is None


def test_two_archives_with_equal_file_names_do_not_mix(archive, tmp_path):
    other = write(tmp_path / "other", **{"sibling.py": "WORD = 'o'"})
    with load(archive) as first, load(other) as second:
        assert first.predict({"n": 1})["said"][1] == "w"
        assert second.predict({"n": 1})["said"][1] == "o"
        assert first.predict({"n": 1})["said"][1] == "w"


def test_modules_of_the_process_are_not_taken_for_the_archives(archive, monkeypatch):
    mine = type(sys)("sibling")
    monkeypatch.setitem(sys.modules, "sibling", mine)
    with load(archive) as loaded:
        assert loaded.predict({"n": 1})["said"][1] == "w"
        assert sys.modules["sibling"] is mine
    monkeypatch.delitem(sys.modules, "sibling")


def test_the_model_config_may_be_given(archive):
    with load(archive, model_config={"a": 1}, gpu_id=2) as loaded:
        assert loaded.context.model_yaml_config == {"a": 1}
        assert loaded.context.device == "cuda:2"


def test_closing_removes_what_was_unpacked(archive):
    loaded = load(zipped(archive))
    folder = Path(loaded.context.system_properties["model_dir"])
    assert folder.is_dir()
    loaded.close()
    assert not folder.exists()
    with pytest.raises(LoadError, match="closed"):
        loaded.predict({"n": 1})
    loaded.close()


def test_what_does_not_load_leaves_nothing_behind(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (archive / "svc.py").write_text("1 / 0")
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        load(zipped(archive))
    (tmp_path / "broken.mar").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(ArchiveError):
        load(tmp_path / "broken.mar")
    with pytest.raises(ArchiveError):
        load(tmp_path / "absent.mar")
    assert list((tmp_path / "temporary").iterdir()) == []
