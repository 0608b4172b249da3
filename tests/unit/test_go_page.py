"""The pages in docs/: their links lead somewhere, and the names on the page for users of go-jobqueue are there."""

import ast
import builtins
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import attrs
import pytest

import jobqueue
import jobqueue.notifier
import jobqueue.store
import jobqueue.testing
import jobqueue_pg

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
GO_PAGE: Final = ROOT / "docs" / "from-go-jobqueue.md"

LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
CODE: Final = re.compile(r"`([^`]+)`")
NAME: Final = re.compile(r"@?([A-Za-z_][\w.]*)(?=$|\()")
DECISION: Final = re.compile(r'^(\d+)\. <a id="(d-[a-z_]+)"></a>\*\*', re.MULTILINE)

PACKAGES: Final[dict[str, ModuleType]] = {"jobqueue": jobqueue, "jobqueue_pg": jobqueue_pg}
PORTS: Final = [jobqueue.store, jobqueue.notifier]
NO_NAMES: Final = {"fn", "logging", "tox", "job_id", "job_type", "__job_type__"}
"""What stands for something of the reader's, is another program's, or is in log records."""


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Return what can be linked to on a page: its headings as GitHub spells them, and its anchors."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return frozenset(slugs | set(re.findall(r'<a id="([^"]+)">', text_of(page))))


@cache
def functions_of(module: Path) -> frozenset[str]:
    tree = ast.parse(text_of(module))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def links_of(page: Path) -> list[tuple[str, str]]:
    """Return texts and targets of a page's links to what is in this repository."""
    return [(text, target) for text, target in LINK.findall(text_of(page)) if "://" not in target]


def rows_of(page: Path) -> list[dict[str, str]]:
    """Return the rows of a page's tables, by the headings of their columns."""
    rows: list[dict[str, str]] = []
    heads: list[str] = []
    for line in text_of(page).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            heads = []
        elif not heads:
            heads = cells
        elif not line.startswith("|---"):
            assert len(cells) == len(heads), line
            rows.append(dict(zip(heads, cells, strict=True)))
    return rows


def names_in(texts: Iterable[str]) -> set[str]:
    """Return what is named, or called, in code; not what is written in several words."""
    codes = (code.removeprefix("with ") for text in texts for code in CODE.findall(text))
    return {match[1] for code in codes if (match := NAME.match(code))}


def exists(name: str) -> bool:
    """Whether *name* is public here, or an attribute of something that is, or a word of the schema."""
    head, *rest = name.split(".")
    if head in PACKAGES and rest:
        things, (head, *rest) = [PACKAGES[head]], rest
    else:
        things = [jobqueue, jobqueue_pg, jobqueue.testing, *PORTS, builtins]
    for thing in things:
        found = [getattr(thing, head)] if has(thing, head) else []
        for step in rest:
            found = [getattr(owner, step, None) for owner in found if has(owner, step)]
        if found:
            return True
    return not rest and (head in PACKAGES or is_attribute(head) or is_in_schema(head))


def has(owner: object, name: str) -> bool:
    """Whether *name* is there; attrs classes without a default have their fields in their instances only."""
    fields = {field.name for field in attrs.fields(owner)} if isinstance(owner, type) and attrs.has(owner) else set()
    return name in fields or hasattr(owner, name)


def is_attribute(name: str) -> bool:
    public = (getattr(jobqueue, thing) for thing in jobqueue.__all__)
    return any(has(thing, name) for thing in public if isinstance(thing, type))


@cache
def is_in_schema(name: str) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", text_of(file)) for file in (ROOT / "migrations").glob("*.sql"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Whatever a page links to in this repository is there: files, directories, headings and anchors."""
    for text, target in links_of(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"[{text}]({target})"
        assert not anchor or anchor in anchors_of(there), f"[{text}]({target})"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_are_where_links_say(page):
    """A link whose text is the name of a test leads to the file that has it."""
    for text, target in links_of(page):
        if text.startswith("test_"):
            assert text in functions_of((page.parent / target).resolve()), f"[{text}]({target})"


def test_differences_are_numbered_as_links_say():
    """The differences count from 1 without a gap, and a link like D3 leads to the third; each has a link."""
    numbered = {anchor: int(number) for number, anchor in DECISION.findall(text_of(GO_PAGE))}
    assert [*numbered.values()] == [*range(1, len(numbered) + 1)]
    linked = {(text, target) for text, target in links_of(GO_PAGE) if target.startswith("#d-")}
    assert linked == {(f"D{number}", f"#{anchor}") for anchor, number in numbered.items()}


def test_every_row_is_shown_by_something():
    """Each row of the page for users of go-jobqueue has a test, or a difference, in its last column."""
    rows = rows_of(GO_PAGE)
    assert len(rows) > 300
    unproven = [row for row in rows if not re.search(r"\]\((\.\./tests/|#d-)", row["shown by"])]
    assert unproven == []


def test_names_of_ours_are_there():
    """Every name that the page calls ours is public, an attribute of what is public, or in the schema."""
    rows = rows_of(GO_PAGE)
    differences = text_of(GO_PAGE).partition("## What is different on purpose")[2].partition("\n## ")[0]
    ours = names_in(row["here"] for row in rows if "here" in row)
    theirs = names_in(row["go-jobqueue"] for row in rows if "go-jobqueue" in row)
    names = (ours | names_in([differences]) - theirs) - NO_NAMES
    assert len(ours) > 100
    assert sorted(name for name in names if not exists(name)) == []
