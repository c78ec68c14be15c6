"""The worked set is whole, and the builder knows what it has to do again."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

from marserve.archive.signature import Signature, validate

ROOT = Path(__file__).parents[2]
NAMES = (
    "digits",
    "digits_torchserve",
    "docstring_topics",
    "fizbuz_mxnet",
    "fizbuz_package",
    "fizbuz_script",
    "fizbuz_torch",
    "scene_match",
    "shapes_detector",
    "shapes_segmenter",
)


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_archives", ROOT / "scripts" / "build_archives.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_archives"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_archives"]


def test_every_archive_has_its_recipe_folder_and_signature(builder):
    assert tuple(sorted(builder.BY_NAME)) == NAMES
    assert tuple(sorted(path.stem for path in (ROOT / "signature").glob("*.json") if "." not in path.stem)) == NAMES
    assert tuple(sorted(path.name for path in (ROOT / "archives").iterdir() if path.is_dir())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_all_that_a_recipe_names_is_there(builder, name):
    recipe = builder.BY_NAME[name]
    for source in (recipe.script, *recipe.sources, *recipe.files.values(), f"archives/{name}/README.md"):
        assert (ROOT / source).is_file(), source
    if recipe.starts_from:
        order = list(builder.BY_NAME)
        assert order.index(recipe.starts_from) < order.index(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_packing_command_names_files_of_the_archive_alone(builder, name):
    recipe = builder.BY_NAME[name]
    packed = {f"{name}/{file}" for file in (*recipe.files, recipe.weights, *recipe.beside)}
    named = {word for word in recipe.command.replace(",", " ").split() if "/" in word}
    assert named <= packed


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_configuration_are_valid(name):
    raw = json.loads((ROOT / "signature" / f"{name}.json").read_text())
    validate(raw)
    assert Signature.parse(raw).description
    config = yaml.safe_load((ROOT / "archives" / name / "model-config.yaml").read_text())
    assert config["minWorkers"] == 1 <= config["maxWorkers"]
    assert config["batchSize"] > 1


def test_a_made_file_is_fresh_until_it_or_its_origin_changes(builder, tmp_path):
    made = tmp_path / "made"
    made.write_text("weights")
    builder.Stamps(tmp_path / "stamps.json").add(made, "origin")
    later = builder.Stamps(tmp_path / "stamps.json")
    assert later.is_fresh(made, "origin")
    assert not later.is_fresh(made, "another origin")
    made.write_text("half of the wei")
    assert not later.is_fresh(made, "origin")
    made.unlink()
    assert not later.is_fresh(made, "origin")


def test_the_origin_tells_files_and_words_apart(builder, tmp_path):
    source, other = tmp_path / "a.py", tmp_path / "b.py"
    source.write_text("1")
    other.write_text("2")
    before = builder.origin_of([source, other], "2.13")
    assert builder.origin_of([source, other], "2.13") == before
    assert builder.origin_of([other, source], "2.13") != before
    assert builder.origin_of([source, other], "2.14") != before
    source.write_text("3")
    assert builder.origin_of([source, other], "2.13") != before


def test_a_source_inside_a_folder_counts_as_well(builder, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "writer.py").write_text("1")
    before = builder.digest(tmp_path)
    (tmp_path / "inner" / "notes.pyc").write_text("no source")
    assert builder.digest(tmp_path) == before
    (tmp_path / "inner" / "writer.py").write_text("2")
    assert builder.digest(tmp_path) != before


def test_damaged_stamps_cost_a_new_build_and_no_trace(builder, tmp_path):
    (tmp_path / "stamps.json").write_text("{cut off")
    assert not builder.Stamps(tmp_path / "stamps.json").is_fresh(tmp_path, "origin")
