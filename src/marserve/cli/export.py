"""``marserve export``: a torch model as ONNX, TorchScript, an exported program or safetensors, and its signature."""

from __future__ import annotations

import argparse
from pathlib import Path

from marserve.cli.packing import run_archiver, say
from marserve.exporting.needs import FORMS, check_installed

_DESCRIPTION = (
    "Writes a torch model in another form, with a signature.json beside it, and asks both models the same: the"
    " example, inputs drawn like it, and batches of other sizes. Nothing is written unless they agree; else it says"
    " where and by how much they differ, and ends with 1."
)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add the flags, and set ``run``, which takes the parsed arguments and returns the exit code."""
    parser.description = _DESCRIPTION
    parser.set_defaults(run=lambda arguments: run_archiver(lambda: _export(arguments)))
    parser.add_argument(
        "model", metavar="MODEL", help="file.py:Class, an archive whose weights are torch's, or a .pt or .pt2"
    )
    parser.add_argument("--to", required=True, choices=list(FORMS), help="the form")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="state dict for file.py:Class")
    _add_example(parser)
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="file or folder to write to (default: beside the model)"
    )
    parser.add_argument(
        "--output-names", default="", metavar="NAMES", help="names of the outputs, a comma list in their order"
    )
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        default=1e-4,
        metavar="NUMBER",
        help="how far an answer may be off: so much, and as large a share of the number (default: %(default)g)",
    )
    parser.add_argument(
        "--script", action="store_true", help="keep branches and loops: script the module instead of tracing it"
    )
    parser.add_argument("--opset", type=int, default=0, metavar="NUMBER", help="of ONNX (default: the exporter's)")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is there")


def _add_example(parser: argparse.ArgumentParser) -> None:
    example = parser.add_mutually_exclusive_group(required=True)
    example.add_argument(
        "--example",
        default="",
        metavar="JSON",
        help="inputs by name, the batch first: '{\"x\": [[1.0, 2.0]]}'; a list for the only one; @FILE reads a file",
    )
    example.add_argument(
        "--example-shape",
        action="append",
        default=[],
        metavar="[NAME=]SHAPE",
        help="draw an input of this shape, such as 1,3,224,224; once for each input",
    )
    parser.add_argument(
        "--dtype", default="", metavar="TYPE", help="of the inputs, or a comma list (default: float32, int64 or bool)"
    )
    parser.add_argument(
        "--free",
        action="append",
        default=[],
        metavar="NAME:AXIS",
        help="an axis that may have another size, as the batch, axis 0, always may; may be repeated",
    )
    parser.add_argument("--fixed-batch", action="store_true", help="export for the size of the example's batch alone")


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no tolerance; 0 asks for equal numbers")
    return value


def _export(arguments: argparse.Namespace) -> None:
    check_installed(arguments.to)
    # The one place from which a command reaches torch: in the user's own process, once it is known to be there.
    from marserve.exporting.chain import Order, export

    order = Order(
        model=arguments.model,
        form=arguments.to,
        example=arguments.example,
        shapes=arguments.example_shape,
        data_types=arguments.dtype,
        weights=arguments.weights,
        output=arguments.output,
        output_names=[name for name in arguments.output_names.split(",") if name],
        free=arguments.free,
        fixed_batch=arguments.fixed_batch,
        script=arguments.script,
        opset=arguments.opset,
        tolerance=arguments.tolerance,
        force=arguments.force,
    )
    made = export(order, lambda line: say(f"NOTE - {line}"))
    print(made.path)
    print(made.signature)
    if made.gap.amount:
        largest = f"; the largest difference is {made.gap.amount:.3g} ({made.gap.words}; asked {made.asked})"
    else:
        largest = ", to the last bit"
    print(f"answers {made.asked_count} inputs as the original does{largest}")
