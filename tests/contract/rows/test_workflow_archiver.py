"""Row A11: ``torch-workflow-archiver``."""

from __future__ import annotations

import json
import zipfile

import pytest

from rows import House, Product

SPEC = "models:\n  first:\n    url: first.mar\ndag:\n  before: [first]\n"


@pytest.fixture
def files(house: House) -> House:
    (house.folder / "spec.yaml").write_text(SPEC)
    (house.folder / "nodes.py").write_text("def before(data, context):\n    return data\n")
    (house.folder / "extra.txt").write_text("extra")
    return house


COMMAND = ("--workflow-name", "flow", "--spec-file", "spec.yaml", "--handler", "nodes.py")


@pytest.mark.row("A11")
def test_a_workflow_is_packed(product: Product, files: House) -> None:
    made = product.run(files.folder, "torch-workflow-archiver", *COMMAND, "--extra-files", "extra.txt")
    assert made.returncode == 0, made.stdout
    with zipfile.ZipFile(files.folder / "flow.war") as archive:
        assert sorted(archive.namelist()) == ["WAR-INF/MANIFEST.json", "extra.txt", "nodes.py", "spec.yaml"]
        assert archive.read("spec.yaml").decode() == SPEC
        manifest = json.loads(archive.read("WAR-INF/MANIFEST.json"))
    assert list(manifest) == ["createdOn", "workflow", "archiverVersion"]
    assert manifest["workflow"] == {"workflowName": "flow", "specFile": "spec.yaml", "handler": "nodes.py"}


@pytest.mark.row("A11")
def test_what_is_there_is_kept_unless_forced(product: Product, files: House) -> None:
    (files.folder / "flow.war").write_text("mine")
    refused = product.run(files.folder, "torch-workflow-archiver", *COMMAND)
    assert refused.returncode == 1
    assert (
        "flow.war already exists.\n"
        "Please specify --force/-f option to overwrite the workflow archive output file.\n"
        "See -h/--help for more details.\n"
    ) in refused.stdout
    assert (files.folder / "flow.war").read_text() == "mine"
    assert product.run(files.folder, "torch-workflow-archiver", *COMMAND, "--force").returncode == 0
    assert zipfile.is_zipfile(files.folder / "flow.war")


@pytest.mark.row("A11")
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--workflow-name", "a b"), "Workflow name contains special characters."),
        (("--export-path", "nowhere"), "nowhere is not a directory. Point to a valid export-path directory."),
    ],
)
def test_what_cannot_be_packed_is_told(product: Product, files: House, wrong: tuple[str, ...], told: str) -> None:
    refused = product.run(files.folder, "torch-workflow-archiver", *COMMAND, *wrong)
    assert refused.returncode == 1
    assert told in refused.stdout


@pytest.mark.row("A11")
def test_a_handler_need_not_be_given(product: Product, files: House) -> None:
    made = product.run(files.folder, "torch-workflow-archiver", *COMMAND[:4])
    assert made.returncode == (1 if product.is_genuine else 0)  # the original ends with an AttributeError
    assert (files.folder / "flow.war").exists() is not product.is_genuine
