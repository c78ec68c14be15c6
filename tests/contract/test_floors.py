"""The floors: the contracts of ``.importlinter`` hold, and worker-side rooms need the standard library alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "marserve"

#: What runs in a worker's own interpreter, which may be Python 3.8 and hold nothing else.
WORKER_SIDE = ("worker", "service", "compat", "wire", "archive")
FILES = sorted(
    [PACKAGE / "__init__.py", PACKAGE / "errors.py", PACKAGE / "logs.py"]
    + [path for room in WORKER_SIDE for path in (PACKAGE / room).rglob("*.py")]
)


#: Handlers that are written for torch and classes below them: they import it at once, as their originals do, and are
#: themselves imported only for an archive that asks for them.
TORCH_HANDLERS = PACKAGE / "compat" / "ts" / "torch_handler"
#: What the old names of Multi Model Server stand on: TorchServe's, and each other.
MMS_NAMES = {"mms": ("ts",), "mms_template": ("mms", "model_handler", "mxnet_model_service", "mxnet_vision_service")}


def place(path):
    return path.relative_to(PACKAGE).as_posix()


def imports_at_once(body):
    """Yield the modules that are imported when the file is: not in functions, not for type checkers."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:  # a relative import stays in its own package
                yield node.module or ""
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_at_once(node.orelse)
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from imports_at_once(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from imports_at_once(handler.body)


def test_the_import_contracts_hold():
    # In a process of its own: the linter sets up logging for the whole of the one that it runs in.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", FILES, ids=place)
def test_worker_side_files_import_the_standard_library_and_each_other(path):
    own = ["marserve", *(["torch"] if TORCH_HANDLERS in path.parents else [])]
    own += [name for room, names in MMS_NAMES.items() if PACKAGE / "compat" / room in path.parents for name in names]
    tree = ast.parse(path.read_text())

    foreign = {
        module
        for module in imports_at_once(tree.body)
        if module.partition(".")[0] not in (*sys.stdlib_module_names, *own)
    }

    assert not foreign


@pytest.mark.parametrize("path", FILES, ids=place)
def test_worker_side_files_are_python_3_8(path):
    ast.parse(path.read_text(), feature_version=(3, 8))


#: Names of the standard library that Python 3.8 does not have, as far as one is tempted by them.
YOUNG = {
    "functools": {"cache"},
    "typing": {"Annotated", "ParamSpec", "Self", "TypeAlias", "Concatenate", "Never", "override", "Unpack"},
    "enum": {"StrEnum"},
    "datetime": {"UTC"},
    "itertools": {"pairwise", "batched"},
    "importlib.resources": {"files", "as_file"},
    "contextlib": {"aclosing", "chdir"},
}
YOUNG_MODULES = {"tomllib", "zoneinfo", "graphlib"}
YOUNG_METHODS = {"removeprefix", "removesuffix", "is_relative_to", "bit_count"}


@pytest.mark.parametrize("path", FILES, ids=place)
def test_worker_side_files_use_no_name_that_is_younger_than_python_3_8(path):
    young = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            young += [alias.name for alias in node.names if alias.name in YOUNG.get(node.module or "", ())]
            young += [node.module] if node.module in YOUNG_MODULES else []
        elif isinstance(node, ast.Import):
            young += [alias.name for alias in node.names if alias.name in YOUNG_MODULES]
        elif isinstance(node, ast.Attribute) and node.attr in YOUNG_METHODS:
            young.append(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "zip":
            young += [keyword.arg for keyword in node.keywords if keyword.arg == "strict"]

    assert not young


#: Packages of the old servers that bring their modules: handlers go through them by attribute.
BRINGING = {PACKAGE / "compat" / name for name in ("ts/metrics", "ts/model_service", "mms/metrics")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=place)
def test_each_file_begins_with_its_purpose(path):
    tree = ast.parse(path.read_text())
    purpose = ast.get_docstring(tree)

    assert purpose, "its first line is to be a docstring"
    is_old_name = path.parent.parent == PACKAGE / "compat"  # handlers read ts.__version__
    if path.name == "__init__.py" and path.parent != PACKAGE and not is_old_name:
        rest = [node for node in tree.body[1:] if path.parent not in BRINGING or not is_of_own_modules(node)]
        assert not rest, "the __init__ of a room is its docstring alone"


def is_of_own_modules(node):
    """Whether a statement brings modules of its own package, or lists them."""
    if isinstance(node, ast.ImportFrom):
        return node.level == 1 and node.module is None
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
