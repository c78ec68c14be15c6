"""The chain itself: load the module, write it in another form, ask both, and keep the file if they agree."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from marserve.archive.signature import SIGNATURE_NAME
from marserve.errors import ConfigError, LoadError, ModelError
from marserve.exporting.answers import Answer, Gap, gap_between, named
from marserve.exporting.example import Example, Tensors, read_example, with_fixed_batch
from marserve.exporting.needs import FORMS
from marserve.exporting.signature import signature_of
from marserve.exporting.source import guarded, in_words, opened
from marserve.exporting.writers import WRITERS, Job, Model, scripted, told

#: Takes a sentence that the user should read.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What the user wants; see the flags of ``marserve export``."""

    model: str
    form: str
    example: str = ""
    shapes: Sequence[str] = ()
    data_types: str = ""
    weights: Path | None = None
    output: Path | None = None
    output_names: Sequence[str] = ()
    free: Sequence[str] = ()
    fixed_batch: bool = False
    script: bool = False
    opset: int = 0
    tolerance: float = 1e-4
    force: bool = False


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path, signature: the two files.
        gap: the largest difference, ``asked`` the input that shows it.
        asked_count: how many inputs both models were asked.
    """

    path: Path
    signature: Path
    gap: Gap
    asked: str
    asked_count: int


def export(order: Order, tell: Tell) -> Exported:
    """Write the file and the ``signature.json``, both or neither, once the file's model answers as the original does.

    Raises:
        ConfigError: an option cannot be meant so.
        LoadError, ArchiveError: the model cannot be loaded, or cannot be had in this form.
        ModelError: it can, but it answers otherwise; says where and by how much.
    """
    if order.script and order.form not in ("onnx", "torchscript"):
        raise ConfigError(f"--script is without effect for {order.form}.", "Leave it out.")
    if order.opset and order.form != "onnx":
        raise ConfigError(f"--opset is without effect for {order.form}.", "Leave it out.")
    with opened(order.model, order.weights) as source, torch.no_grad():
        for note in source.notes:
            tell(note)
        place = place_of(order, source.path)
        example = read_example(source.module, order.example, order.shapes, order.data_types, order.free)
        example = with_fixed_batch(example) if order.fixed_batch else example
        cases = cases_of(source.module, example, order.output_names, tell)
        answer, others = cases[0].answer, [case.answer for case in cases[1:]]
        signature = signature_of(f"{Path(order.model).name}, exported as {order.form}.", example, answer, others)
        with told():
            module = scripted(source.module) if order.script else source.module
        job = Job(module, example, tuple(answer), order.opset)
        return _kept_if_equal(job, order, place, signature, cases, tell)


def _kept_if_equal(
    job: Job, order: Order, place: Path, signature: Mapping[str, Any], cases: Sequence[Case], tell: Tell
) -> Exported:
    """Write both files under another name, ask the model in the first, and give them their own."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".marserve-export-", dir=place.parent) as folder:
        draft, beside = Path(folder, place.name), Path(folder, SIGNATURE_NAME)
        model = _written(job, order.form, draft, tell)
        gap, asked = _compare(cases, model, job, order)
        beside.write_text(json.dumps(signature, indent=2) + "\n", encoding="utf-8")
        draft.chmod(beside.stat().st_mode)  # safetensors lets nobody else read what it writes
        os.replace(draft, place)
        os.replace(beside, place.with_name(SIGNATURE_NAME))
    return Exported(place, place.with_name(SIGNATURE_NAME), gap, asked, len(cases))


def place_of(order: Order, source: Path) -> Path:
    """Return where the file goes; ``signature.json`` lies beside it.

    Raises:
        ConfigError: one of the two is there already, or the name is another form's.
    """
    suffix = FORMS[order.form].suffix
    place = order.output or source.resolve().parent
    if place.is_dir() or not place.suffix:
        whole = source.resolve().name
        place /= (whole if source.is_dir() else Path(whole.removesuffix(".gz")).stem) + suffix
    elif place.suffix != suffix:
        raise ConfigError(f"--output {place} does not end in {suffix}, the suffix of {order.form}.", _PLACE_HINT)
    if any(place.resolve() == each.resolve() for each in (source, order.weights) if each is not None):
        raise ConfigError(f"{place} is what the model is read from.", _PLACE_HINT)
    there = [each for each in (place, place.with_name(SIGNATURE_NAME)) if each.exists()]
    if there and not (order.force and all(each.is_file() for each in there)):
        names = " and ".join(map(str, there))
        raise ConfigError(f"{names} exists already.", "--force overwrites a file; --output names another place.")
    return place


_PLACE_HINT = "Name another file or folder: --output."


class Case(NamedTuple):
    """One input that both models are asked.

    Attributes:
        what: words for it.
        answer: the original's.
    """

    what: str
    inputs: Tensors
    answer: Answer


def cases_of(module: Any, example: Example, output_names: Sequence[str], tell: Tell) -> list[Case]:
    """Ask the original: the example first, then what is like it.

    Raises:
        LoadError: it fails on the example or on another size of what is free, or it answers anew each time, so that
            nothing could be held against it.
        ConfigError: the names are not as many as the outputs.
    """
    cases: list[Case] = []
    failed = []
    for what, inputs in example.to_compare():
        try:
            output = _asked(module, inputs)
        except Exception as error:  # the author's code raises what it likes
            failed.append(f"The model itself fails on {what}: {in_words(error)}")
            if not what.startswith("drawn"):
                raise LoadError(failed[-1], _FAILED_HINT if not cases else _SIZES_HINT) from error
        else:
            cases.append(Case(what, inputs, named(output, output_names)))
    if failed:
        tell(f"{len(failed)} drawn inputs are not compared. {failed[0]}")
    first = cases[0]
    gap = gap_between(first.answer, list(named(_asked(module, first.inputs)).values()), 0.0)
    if gap.is_too_large:
        raise LoadError(
            f"The model answers the same input in two ways: {gap.words}.",
            "What draws random numbers, or remembers, cannot be compared: make forward a function of its inputs.",
        )
    return cases


_FAILED_HINT = "Give an example as forward takes it: --dtype float32 reads whole numbers as floats."
_SIZES_HINT = "Leave --free out, or add --fixed-batch: then it is exported for the size of the example's batch alone."


def _asked(model: Model, inputs: Tensors) -> Any:
    """Return what a model gives for inputs, which stay as they are even if it changes what it is given."""
    return model(*(tensor.clone() for tensor in inputs))


def _written(job: Job, form: str, draft: Path, tell: Tell) -> Model:
    """Write the draft and return the model in it."""
    writer = WRITERS[form]
    failed = f"The model cannot be exported to {form}"
    with told() as warned:
        notes: list[str] = guarded(failed, _EXPORT_HINT, lambda: writer.write(job, draft))
    for line in [*(f"The tracer warns: {warning}" for warning in warned), *notes]:
        tell(line)
    with told():
        model: Model = guarded(f"What was exported to {form} cannot be loaded", "", lambda: writer.load(job, draft))
    return model


_EXPORT_HINT = (
    "If it says that a size is fixed: leave --free out, or export for the example's batch alone with --fixed-batch. "
    "Branches that depend on the data need --script, for torchscript or onnx."
)


def _compare(cases: Sequence[Case], model: Model, job: Job, order: Order) -> tuple[Gap, str]:
    """Ask the exported model the same and return the largest difference, and the input that shows it.

    Raises:
        ModelError: it is beyond the tolerance, or the exported model fails where the original does not.
    """
    hint = WRITERS[order.form].hint
    found = []
    for case in cases:
        try:
            with told():
                got = list(named(_asked(model, case.inputs)).values())
        except Exception as error:  # every runtime has errors of its own
            raise ModelError(
                f"The exported model alone fails on {case.what}: {in_words(error)}",
                hint(job),
            ) from error
        found.append((gap_between(case.answer, got, order.tolerance), case.what))
    largest, what = max(found, key=lambda one: one[0].rank)
    if largest.is_too_large:
        count = sum(gap.is_too_large for gap, _ in found)
        raise ModelError(
            f"The exported model answers {count} of {len(found)} inputs otherwise. Asked {what}: {largest.words}.",
            hint(job),
        )
    return largest, what
