"""The pages in docs/: their links lead somewhere, and the names on the page for users of go-jobqueue are there."""

import re
from typing import Final

import pytest

from tests.fixtures.pages import ROOT, anchors_of, exists, functions_of, links_of, names_in, rows_of, text_of

PAGES: Final = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
GO_PAGE: Final = ROOT / "docs" / "from-go-jobqueue.md"

DECISION: Final = re.compile(r'^(\d+)\. <a id="(d-[a-z_]+)"></a>\*\*', re.MULTILINE)

NO_NAMES: Final = {"fn", "logging", "tox", "job_id", "job_type", "__job_type__"}
"""What stands for something of the reader's, is another program's, or is in log records."""


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
