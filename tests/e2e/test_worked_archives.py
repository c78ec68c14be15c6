"""The worked archives, built by their script as a user builds them, loaded and asked."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import marserve
from marserve import InvalidData

ROOT = Path(__file__).parents[2]
BUILDER = ROOT / "scripts" / "build_archives.py"
FIZBUZ = ("fizbuz_package", "fizbuz_torch", "fizbuz_script")
NUMBERS = range(1023)
BUILD_TIMEOUT = 300


def build(folder, *options):
    """Run the script and return what it printed."""
    command = [
        sys.executable,
        str(BUILDER),
        "--store",
        str(folder / "store"),
        "--work",
        str(folder / "work"),
        "--brief",
        *options,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def built(workshop):
    """The folder with all archives, and what their first builds printed."""
    workshop.build()
    return workshop.folder, workshop.printed


@pytest.fixture(scope="module")
def store(built):
    return built[0] / "store"


@pytest.fixture(scope="module")
def loaded(store):
    """Every archive that runs in the server's own environment, loaded."""
    wanted = [path for path in store.glob("*.mar") if path.stem != "fizbuz_mxnet"]
    archives = {path.stem: marserve.load(path, batch_size=32) for path in wanted}
    yield archives
    for archive in archives.values():
        archive.close()


pytestmark = pytest.mark.timeout(BUILD_TIMEOUT + 60)


def test_the_build_makes_all_archives_and_says_what_it_does(built):
    folder, printed = built
    assert sorted(path.name for path in (folder / "store").iterdir()) == [
        "digits.mar",
        "digits_torchserve.mar",
        "docstring_topics.mar",
        "fizbuz_mxnet.mar",
        "fizbuz_package.mar",
        "fizbuz_script.mar",
        "fizbuz_torch.mar",
        "scene_match.mar",
        "shapes_detector.mar",
        "shapes_segmenter.mar",
    ]
    assert "1023 of 1023 right" in printed
    assert "accuracy on the 359 held-out pictures: 99." in printed
    assert "\x1b" not in printed


def test_a_second_build_makes_nothing(built):
    folder, _ = built
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert "made now: nothing" in build(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_training_again_gives_the_same_bytes(built, tmp_path):
    folder, _ = built
    again = ["fizbuz_mxnet", "fizbuz_package", "fizbuz_script"]
    build(tmp_path, *(word for name in again for word in ("--only", name)))
    made = sorted((tmp_path / "store").iterdir())
    assert [path.stem for path in made] == again
    assert [sha256(path) for path in made] == [sha256(folder / "store" / path.name) for path in made]


def test_the_script_is_the_same_wherever_it_is_made_and_names_no_folder(built, tmp_path):
    weights = built[0] / "work" / "weights"
    elsewhere = tmp_path / "another" / "checkout"
    for name in ("fizbuz_script", "fizbuz_torch"):
        shutil.copytree(ROOT / "archives" / name, elsewhere / name)
    shutil.copyfile(ROOT / "archives" / "torchscript.py", elsewhere / "torchscript.py")
    script = elsewhere / "fizbuz_script" / "export.py"
    command = [sys.executable, str(script), "--weights", str(weights / "fizbuz.pt"), "--output", str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "0"}, timeout=60, check=True)
    made = tmp_path / "fizbuz_script.pt"
    assert sha256(made) == sha256(weights / "fizbuz_script.pt")
    with zipfile.ZipFile(made) as archive:
        for entry in archive.namelist():
            assert str(tmp_path).encode() not in archive.read(entry), entry
            assert sys.prefix.encode() not in archive.read(entry), entry


def test_a_spoiled_archive_is_packed_again_without_training(built, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(built[0], folder)
    spoiled = folder / "store" / "fizbuz_package.mar"
    original = sha256(spoiled)
    spoiled.write_bytes(spoiled.read_bytes()[:1000])
    # The stamps name files by their full path.
    stamps = folder / "work" / "stamps.json"
    stamps.write_text(stamps.read_text().replace(str(built[0]), str(folder)))
    printed = build(folder)
    assert "made now: fizbuz_package.mar." in printed
    assert "step" not in printed
    assert sha256(spoiled) == original


def test_the_short_command_packs_the_folder_as_it_stands(built, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(built[0] / "work" / "fizbuz_package", work / "fizbuz_package")
    command = "model-archiver --model-name fizbuz_package --model-path fizbuz_package --handler fizbuz_service -f"
    program, *options = command.split()
    program = str(Path(sys.executable).with_name(program))
    ended = subprocess.run([program, *options], cwd=work, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert sha256(work / "fizbuz_package.mar") == sha256(built[0] / "store" / "fizbuz_package.mar")


def word(number):
    return "Fiz" * (number % 3 == 0) + "Buz" * (number % 5 == 0) or str(number)


@pytest.mark.parametrize("name", FIZBUZ)
def test_every_number_gets_its_word_alone_and_in_batches(loaded, name):
    archive = loaded[name]
    expected = [{"next_number": word(number + 1)} for number in NUMBERS]
    assert [archive.predict({"input.1": number}) for number in NUMBERS] == expected
    assert archive.predict_batch([{"input.1": number} for number in NUMBERS]) == expected


@pytest.mark.parametrize("name", FIZBUZ)
def test_a_bad_item_costs_its_batch_nothing(loaded, name):
    first, refused, last = loaded[name].predict_batch([{"input.1": 14}, {"input.1": 1023}, {"input.1": 2}])
    assert (first, last) == ({"next_number": "FizBuz"}, {"next_number": "Fiz"})
    assert isinstance(refused, InvalidData)
    assert "expected 0 to 1022" in str(refused)


@pytest.mark.parametrize(
    "request_body",
    [{"input.1": "14"}, {"input.1": True}, {"input.1": None}, {"input.1": 1.5}, {"input": 14}, [14], 14],
)
@pytest.mark.parametrize("name", FIZBUZ)
def test_what_is_no_number_is_refused(loaded, name, request_body):
    with pytest.raises(InvalidData, match=r"input\.1"):
        loaded[name].predict(request_body)


def test_the_model_takes_its_input_by_the_name_of_the_signature(loaded):
    service = loaded["fizbuz_package"].service
    (model_input,) = service.session.get_inputs()
    assert model_input.name == "input.1"
    assert model_input.shape == ["batch", 10]


@pytest.fixture(scope="module")
def held_out():
    """Pictures and digits that the training never saw."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images[4::5], data.target[4::5]


@pytest.fixture
def choose(monkeypatch):
    """The script that compares settings; what it imports is gone again afterwards."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "archives" / "digits"), *sys.path])
    before = set(sys.modules)
    import choose

    yield choose
    for name in {"choose", "train", "network", "digits_service"} - before:
        sys.modules.pop(name, None)


def test_the_settings_of_digits_are_chosen_without_the_held_out_pictures(choose, held_out):
    learned, learned_digits, judged, judged_digits = choose.parts_to_choose_by()
    seen = {(picture.numpy() * 16).astype(float).tobytes() for picture in (*learned, *judged)}
    assert len(seen) == len(learned_digits) + len(judged_digits) == 1438
    assert not [picture for picture in held_out[0] if picture[None].tobytes() in seen]


def share_right(answers, digits):
    return np.mean([next(iter(answer)) == str(digit) for answer, digit in zip(answers, digits, strict=True)])


def test_digits_are_read_from_arrays(loaded, held_out):
    pictures, digits = held_out
    assert share_right(loaded["digits"].predict_batch(list(pictures)), digits) > 0.98


@pytest.mark.parametrize(("image_format", "side", "is_dark_ink"), [("PNG", 100, True), ("JPEG", 37, False)])
def test_digits_are_read_from_images_of_any_size(loaded, held_out, image_format, side, is_dark_ink):
    pictures, digits = held_out

    def encoded(picture):
        ink = Image.fromarray((picture * 255 / 16).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        paper = Image.new("L", (side + 20, side + 50))
        paper.paste(ink, (5, 30))
        file = io.BytesIO()
        (Image.fromarray(255 - np.asarray(paper)) if is_dark_ink else paper).save(file, image_format)
        return file.getvalue()

    images = [encoded(picture) for picture in pictures]
    answers = loaded["digits"].predict_batch(images, content_type=f"image/{image_format.lower()}")
    assert share_right(answers, digits) > 0.98


def test_an_answer_holds_five_labels_the_most_likely_first(loaded, held_out):
    answer = loaded["digits"].predict(held_out[0][0])
    probabilities = list(answer.values())
    assert len(answer) == 5
    assert set(answer) <= set("0123456789")
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.9 < sum(probabilities) <= 1.0001


def test_what_is_no_picture_is_refused_alone(loaded, held_out):
    good = held_out[0][0].tolist()
    first, refused, last = loaded["digits"].predict_batch([good, [[1, 2], [3, 4]], good])
    # Sums of another length differ in their last bits.
    assert first == pytest.approx(loaded["digits"].predict(good), abs=1e-6)
    assert last == pytest.approx(first, abs=1e-6)
    assert isinstance(refused, InvalidData)
    with pytest.raises(InvalidData, match="no image"):
        loaded["digits"].predict(b"no image", content_type="image/png")
