"""The archiver commands beyond the feature table (``rows/test_archivers.py``): ours, and Multi Model Server's."""

from __future__ import annotations

import argparse
import json
import signal
import tarfile
import zipfile
from pathlib import Path

import pytest

from marserve.archive.manifest import MANIFEST_NAME
from marserve.cli import archive as archive_commands
from marserve.cli import packing
from marserve.cli.mms_archiver import main as model_archiver
from marserve.cli.torch_archiver import main as torch_model_archiver

SERVICE = "def handle(data, context):\n    return data\n"
SIGNATURE = {
    "inputs": [{"name": "x", "shape": [], "data_type": "int64"}],
    "outputs": [{"name": "y", "shape": [], "data_type": "string"}],
}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder with the files that the commands below name."""
    monkeypatch.chdir(tmp_path)
    for name in ("w.pt", "model.py", "req.txt", "extra/a.txt", "extra/b.bin", "extra/sub/c.txt", "extra/.hidden"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "h.py").write_text(SERVICE)
    (tmp_path / "config.yaml").write_text("batchSize: 4\n")
    (tmp_path / "out").mkdir()
    tree = tmp_path / "fizbuz_package"
    tree.mkdir()
    (tree / "fizbuz_service.py").write_text(SERVICE)
    (tree / "fizbuz.onnx").write_text("graph")
    (tree / "signature.json").write_text(json.dumps(SIGNATURE))
    return tmp_path


def torch(*more: str, handler: str = "h.py", name: str = "m") -> int:
    return torch_model_archiver(
        ["--model-name", name, "--version", "1.0", "--handler", handler, "--export-path", "out", *more]
    )


def mms(*more: str, name: str = "fizbuz_package", path: str = "fizbuz_package") -> int:
    return model_archiver(["--model-name", name, "--model-path", path, "--handler", "fizbuz_service", *more])


def marserve(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    archive_commands.add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(arguments)
    status: int = args.run(args)
    return status


def names(archive: str) -> set[str]:
    with zipfile.ZipFile(archive) as packed:
        return set(packed.namelist())


def manifest(archive: str) -> dict[str, object]:
    with zipfile.ZipFile(archive) as packed:
        found = json.loads(packed.read(MANIFEST_NAME))
    assert isinstance(found, dict)
    return found


def below(folder: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


class TestTorchModelArchiver:
    def test_every_option_lands_in_the_archive(self) -> None:
        status = torch(
            *("--serialized-file", "w.pt", "--model-file", "model.py", "--extra-files", "extra,req.txt"),
            *("--requirements-file", "req.txt", "--config-file", "config.yaml", "--runtime", "python3"),
            handler="h:handle",
        )

        assert status == 0
        assert names("out/m.mar") == {
            *("w.pt", "model.py", "h.py", "a.txt", "b.bin", "sub/c.txt", ".hidden", "req.txt", "config.yaml"),
            MANIFEST_NAME,
        }
        found = manifest("out/m.mar")
        assert list(found) == ["createdOn", "runtime", "model", "archiverVersion"]
        assert found["createdOn"] == "01/01/1980 00:00:00"
        assert found["runtime"] == "python3"
        assert found["model"] == {
            "modelName": "m",
            "serializedFile": "w.pt",
            "handler": "h:handle",
            "modelFile": "model.py",
            "modelVersion": "1.0",
            "requirementsFile": "req.txt",
            "configFile": "config.yaml",
        }

    @pytest.mark.parametrize(
        ("handler", "written"), [("h", "h"), ("h.py", "h.py"), ("h.py:f", "h.py:f"), ("./h:f", "h:f")]
    )
    def test_handler_is_copied_and_written_as_named(self, handler: str, written: str) -> None:
        assert torch(handler=handler) == 0

        assert "h.py" in names("out/m.mar")
        assert manifest("out/m.mar")["model"]["handler"] == written  # type: ignore[index]

    @pytest.mark.parametrize(("handler", "status"), [("BaseHandler", 0), ("TorchScriptHandler", 0), ("mine", 1)])
    def test_cpp_runtime_has_handlers_of_its_own(self, handler: str, status: int) -> None:
        assert torch("--runtime", "LSP", handler=handler) == status

    def test_folder_that_is_there_keeps_its_other_files(self) -> None:
        torch("--archive-format", "no-archive")
        Path("out/m/mine.txt").write_text("x")

        assert torch("--archive-format", "no-archive", "-f") == 0

        assert below("out/m") == {"h.py", "mine.txt", MANIFEST_NAME}

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("--extra-files", "gone.txt"), "File does not exist: gone.txt"),
            (("--serialized-file", "gone.pt"), "gone.pt"),
            (("--export-path", "h.py"), "Given export-path h.py is not a directory."),
        ],
    )
    def test_errors_end_with_one(
        self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
    ) -> None:
        assert torch(*arguments) == 1
        assert text in capsys.readouterr().err
        assert list(Path("out").iterdir()) == []

    @pytest.mark.parametrize("missing", ["--model-name", "--version", "--handler"])
    def test_missing_flags_end_with_two(self, missing: str) -> None:
        flags = {"--model-name": "m", "--version": "1", "--handler": "h.py"}
        arguments = [word for flag, value in flags.items() if flag != missing for word in (flag, value)]

        with pytest.raises(SystemExit) as ended:
            torch_model_archiver(arguments)
        assert ended.value.code == 2

    def test_missing_export_path_is_made(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert torch("--export-path", "new/folder") == 0
        assert Path("new/folder/m.mar").is_file()
        assert "WARNING - Creating the export-path" in capsys.readouterr().err

    def test_pattern_without_match_is_only_warned_of(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert torch("--extra-files", "zz*") == 0
        assert "did not match any file: zz*" in capsys.readouterr().err

    def test_unpacked_archive_can_be_packed_again(self) -> None:
        torch("--archive-format", "no-archive", name="first")

        assert torch("--extra-files", "out/first") == 0
        with zipfile.ZipFile("out/m.mar") as packed:
            assert packed.namelist().count(MANIFEST_NAME) == 1


class TestModelArchiver:
    def test_short_form_works_as_it_stands(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert mms("-f") == 0

        assert names("fizbuz_package.mar") == {"fizbuz_service.py", "fizbuz.onnx", "signature.json", MANIFEST_NAME}
        told = capsys.readouterr()
        assert told.out == ""
        assert "SHA-256" in told.err

    def test_manifest_holds_exactly_its_five_members(self) -> None:
        mms()

        assert manifest("fizbuz_package.mar") == {
            "runtime": "python",
            "model": {"modelName": "fizbuz_package", "handler": "fizbuz_service"},
            "modelServerVersion": "1.0",
            "implementationVersion": "1.0",
            "specificationVersion": "1.0",
        }

    def test_formats(self) -> None:
        for archive_format in ("default", "tgz", "no-archive"):
            assert mms("--archive-format", archive_format, "--export-path", "out") == 0

        with tarfile.open("out/fizbuz_package.tar.gz") as packed:
            expected = {name.removeprefix("fizbuz_package/") for name in packed.getnames()}
        assert expected == names("out/fizbuz_package.mar") == below("out/fizbuz_package")

    def test_folder_in_its_place_gets_the_manifest_alone(self) -> None:
        Path("fizbuz_package/left.pyc").write_text("x")

        assert mms("--archive-format", "no-archive") == 1
        assert mms("--archive-format", "no-archive", "-f") == 0

        assert below("fizbuz_package") == {
            *("fizbuz_service.py", "fizbuz.onnx", "signature.json", "left.pyc"),
            MANIFEST_NAME,
        }

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"name": "_a"}, "Model name contains special characters."),
            ({"name": "a b"}, "Model name contains special characters."),
            ({"path": "gone"}, "Given model-path gone is not a valid directory."),
            ({"path": "h.py"}, "Given model-path h.py is not a valid directory."),
        ],
    )
    def test_errors_end_with_one(
        self, capsys: pytest.CaptureFixture[str], arguments: dict[str, str], text: str
    ) -> None:
        assert mms(**arguments) == 1
        assert text in capsys.readouterr().err

    def test_export_path_must_be_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert mms("--export-path", "gone") == 1
        assert "Given export-path gone is not a directory." in capsys.readouterr().err

    def test_existing_output_is_kept_without_force(self, capsys: pytest.CaptureFixture[str]) -> None:
        mms()
        assert mms() == 1
        assert "fizbuz_package.mar already exists.\nPlease specify --force/-f" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["--model-name", "m"], ["--runtime", "java"]])
    def test_wrong_flags_end_with_two(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            model_archiver(arguments)
        assert ended.value.code == 2

    def test_conversion_of_what_is_no_model_leaves_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert mms("-c") == 1
        assert "ERROR - fizbuz.onnx cannot be read as an ONNX model" in capsys.readouterr().err
        assert not Path("fizbuz_package.mar").exists()

    def test_conversion_of_several_files_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("fizbuz_package/other.onnx").write_text("x")

        assert mms("-c") == 1
        assert "more than one .onnx file: fizbuz.onnx, other.onnx" in capsys.readouterr().err

    def test_conversion_without_onnx_file_means_nothing(self) -> None:
        Path("fizbuz_package/fizbuz.onnx").unlink()

        assert mms("--convert") == 0


@pytest.mark.parametrize("pack", [torch, mms])
def test_drop_ins_warn_of_a_foreign_signature_and_refuse_a_wrong_one(
    pack: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("fizbuz_package/signature.json")
    more = ("--extra-files", str(path), "-f") if pack is torch else ("-f",)
    assert callable(pack)

    path.write_text("labels, whatever")
    assert pack(*more) == 0
    assert "WARNING - signature.json is no JSON" in capsys.readouterr().err

    path.write_text(json.dumps({**SIGNATURE, "inputs": [{"name": "x", "shape": [], "data_type": "float"}]}))
    assert pack(*more) == 1
    assert "signature.json.inputs[0].data_type: 'float' is not one of" in capsys.readouterr().err


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    monkeypatch.setattr(packing, "_LONG", 1)

    assert torch() == 0

    told = capsys.readouterr()
    assert told.out == ""
    assert "out/m.mar: " in told.err
    assert ("m.mar: 0 of 0 MiB" in told.err) == (not is_terminal)


def test_interruption_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "write_archive", interrupt)

    assert torch() == 130
    assert "Interrupted" in capsys.readouterr().err


def test_the_signal_to_end_leaves_by_way_of_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(packing, "write_archive", lambda *args: signal.raise_signal(signal.SIGTERM))

    with pytest.raises(SystemExit) as caught:
        torch()

    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


class TestMarserveArchive:
    def test_create_packs_a_folder_and_prints_its_digest(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert marserve("create", "fizbuz_package", "--output", "new") == 0

        out = capsys.readouterr().out.splitlines()
        assert out[0] == "new/fizbuz_package.mar"
        assert out[2].startswith("SHA-256 ")
        assert manifest(out[0])["model"] == {
            "modelName": "fizbuz_package",
            "serializedFile": "fizbuz.onnx",
            "handler": "fizbuz_service.py",
            "modelVersion": "1.0",
        }

    def test_create_gives_the_same_bytes_again(self, capsys: pytest.CaptureFixture[str]) -> None:
        digests = set()
        for _ in range(2):
            marserve("create", "fizbuz_package", "-f")
            digests.add(capsys.readouterr().out.splitlines()[2])

        assert len(digests) == 1

    def test_create_packs_single_files(self) -> None:
        signature = "fizbuz_package/signature.json"
        status = marserve(
            *(
                "create",
                "--model-name",
                "m",
                "--handler",
                "h.py:handle",
                "--weights",
                "w.pt",
                "--signature",
                signature,
            ),
            *("--extra-files", "extra/a.txt", "--extra-files", "req.txt", "--config-file", "config.yaml"),
            *("--requirements", "req.txt", "--version", "2.0", "--format", "zip-store", "--output", "out"),
        )

        assert status == 0
        expected = {"h.py", "w.pt", "signature.json", "a.txt", "req.txt", "config.yaml", MANIFEST_NAME}
        assert names("out/m.mar") == expected

    def test_create_packs_an_archive_folder_again(self) -> None:
        marserve("create", "fizbuz_package", "--version", "3.1", "--format", "no-archive", "--output", "out")

        assert marserve("create", "--from-folder", "out/fizbuz_package", "--output", "out") == 0
        found = manifest("out/fizbuz_package.mar")["model"]
        assert (found["modelVersion"], found["handler"]) == ("3.1", "fizbuz_service.py")  # type: ignore[index]

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("gone",), "gone is no folder"),
            (("extra",), "No handler is named"),
            (("--handler", "h.py"), "The model has no name"),
            (("--model-name", "m", "--handler", "h.py:run"), "no function 'run'"),
            (("--model-name", "m", "--handler", "broken.py"), "broken.py, line 1"),
            (("--model-name", "m", "--handler", "h.py", "--signature", "config.yaml"), "signature.json is no JSON"),
            (("fizbuz_package", "--from-folder", "extra"), "Two folders are named"),
        ],
    )
    def test_create_refuses_what_could_not_be_served(
        self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
    ) -> None:
        Path("broken.py").write_text("def handle(:")

        assert marserve("create", *arguments) == 1
        assert text in capsys.readouterr().err
        assert not list(Path().glob("*.mar"))

    def test_inspect_tells_what_is_inside(self, capsys: pytest.CaptureFixture[str]) -> None:
        marserve("create", "fizbuz_package")
        sha256 = capsys.readouterr().out.splitlines()[2].split()[1]

        assert marserve("inspect", "fizbuz_package.mar", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["sha256"], found["family"], found["format"]) == (sha256, "torchserve", "zip")
        assert found["signature"] == SIGNATURE
        assert [file["name"] for file in found["files"]] == ["fizbuz.onnx", "fizbuz_service.py", "signature.json"]

        assert marserve("inspect", "fizbuz_package.mar") == 0
        assert sha256 in capsys.readouterr().out

    @pytest.mark.parametrize("archive_format", ["tgz", "no-archive"])
    def test_inspect_takes_every_format(self, capsys: pytest.CaptureFixture[str], archive_format: str) -> None:
        marserve("create", "fizbuz_package", "--format", archive_format, "--output", "out")
        path = capsys.readouterr().out.splitlines()[0]

        assert marserve("inspect", path, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["manifest"]["model"]["modelName"] == "fizbuz_package"
        assert found["signature"] == SIGNATURE

    def test_verify_says_yes_or_why_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        marserve("create", "fizbuz_package")
        assert marserve("verify", "fizbuz_package.mar") == 0

        path = Path("fizbuz_package.mar")
        path.write_bytes(path.read_bytes()[:-40])
        assert marserve("verify", "fizbuz_package.mar") == 1
        assert "damaged or cut short" in capsys.readouterr().err

    def test_list_shows_a_store(self, capsys: pytest.CaptureFixture[str]) -> None:
        marserve("create", "fizbuz_package", "--output", "out")
        capsys.readouterr()

        assert marserve("list", "out") == 0
        assert "fizbuz_package.mar\t" in capsys.readouterr().out
        assert marserve("list", "out", "--json") == 0
        assert json.loads(capsys.readouterr().out)[0]["name"] == "fizbuz_package.mar"
        assert marserve("list", "gone") == 1
