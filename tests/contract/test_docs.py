"""The documentation keeps its word: pages are linked, links lead somewhere, commands exist, tables follow code."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from marserve.doors.http.dialects import DIALECTS
from marserve.errors import by_kind

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("archives/*/README.md"), ROOT / "bench" / "README.md"]
)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The command behind ``make docs``."""
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the names that links to headings of a page use."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shown_commands(page: Path) -> list[str]:
    """Return the lines that a page has its reader type."""
    blocks = FENCED.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith(("$ ", "make "))]


def test_every_page_is_linked_from_the_index_and_the_index_from_the_readme() -> None:
    linked = {(DOCS / target).resolve() for target in LINK.findall(text_of(DOCS / "index.md"))}
    assert [page.name for page in DOCS.glob("*.md") if page.name != "index.md" and page not in linked] == []
    assert "docs/index.md" in LINK.findall(text_of(ROOT / "README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(text_of(page)):
        path, _, anchor = target.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS.glob("*.md")], ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_there(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    programs = {*project["scripts"], "locust", "curl", "cd", "ls"}
    for line in shown_commands(page):
        program, *words = line.split()
        if program == "make":
            assert words[0] in targets, line
        else:
            assert program in programs, line


def test_every_make_target_that_the_text_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name for names in re.findall(r"^([a-z0-9 -]+):", makefile, re.MULTILINE) for name in names.split()}
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", text_of(page))}
    assert {"run", "demo", "test", "help", "bench"} <= named
    assert named <= targets


def test_the_paths_that_the_readme_lists_are_there() -> None:
    _, _, layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is where")
    paths = re.findall(r"`([a-z./_]+)`(?=[,| ])", "\n".join(re.findall(r"^\|[^|]*\|", layout, re.MULTILINE)))
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_pages_that_are_made_from_the_code_are_up_to_date(script: ModuleType) -> None:
    stale = [page.name for page, text in script.pages().items() if page.read_text(encoding="utf-8") != text]
    assert stale == [], "run: make docs"


def test_every_kind_of_error_has_its_row_and_its_answers() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    advice, _, answers = page.partition("## Status and type, by dialect")
    for kind in by_kind():
        assert len(re.findall(rf"^\| `{kind}` \| .+ \| .+ \|$", advice, re.MULTILINE)) == 1, kind
        (row,) = re.findall(rf"^\| `{kind}` \| (.+) \|$", answers, re.MULTILINE)
        statuses = [int(re.sub(r"\D.*", "", cell)) for cell in row.split(" | ")]
        assert statuses == [dialect.errors[kind].status for dialect in DIALECTS.values()], kind
    described = re.findall(r"^\| `(\w+)` \|", advice, re.MULTILINE)
    assert set(described) == set(by_kind())


def test_a_page_without_its_marks_is_refused(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a:begin -->\nold\n<!-- a:end -->\nafter\n")
    assert script.filled(page, "a", "new\n") == "before\n<!-- a:begin -->\nnew\n<!-- a:end -->\nafter\n"
    for broken in (
        "no marks\n",
        "<!-- a:begin -->\n<!-- a:begin -->\n<!-- a:end -->\n",
        "<!-- a:end -->\n<!-- a:begin -->\n",
    ):
        page.write_text(broken)
        with pytest.raises(SystemExit, match="needs one line <!-- a:begin -->"):
            script.filled(page, "a", "new\n")


@pytest.fixture
def result(script: ModuleType) -> dict[str, object]:
    """A result file of ``bench.run`` in which each round found 100 of everything."""
    from bench.plan import CONTENDERS
    from bench.report import Results, as_json
    from bench.run import cells_of

    figures = ("rps", "p50", "p99", "resident", "family", "has_torch", "first_answer")
    rounds = [{cell: dict.fromkeys(figures, 100.0) for one in CONTENDERS for cell in cells_of(one)}] * 3
    machine = dict.fromkeys(
        ("time", "commit", "processor", "system", "python", "uvicorn", "fastapi", "onnxruntime"), "x"
    )
    about = {"machine": {**machine, "cores": 2}, "effort": {"rounds": 3, "seconds": 4.0, "tool": "wrk"}}
    made: dict[str, object] = json.loads(json.dumps(as_json(Results(rounds), (), about)))
    return made


def test_a_result_file_becomes_the_figures_of_the_readme(script: ModuleType, result: dict[str, object]) -> None:
    from bench.plan import CONTENDERS, TARGETS

    block = script.bench_block(result)

    assert "3 rounds of 4 s" in block
    for target in TARGETS:
        assert f"| {target.title} |" in block
    for contender in CONTENDERS:
        assert f"| {contender.title} |" in block
    assert "1.00 x" in block


def test_a_result_file_of_a_part_is_refused(script: ModuleType, result: dict[str, object]) -> None:
    result["void"] = {"asgi@64": "it did not start"}
    with pytest.raises(SystemExit, match="batch 1, 64 connections"):
        script.bench_block(result)
