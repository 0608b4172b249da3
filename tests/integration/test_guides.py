"""The pages that lead from an empty directory to the first job, as they stand there."""

from typing import Final

import psycopg
import pytest

from tests.fixtures.guides import Address, Command, File, steps_of
from tests.fixtures.pages import ROOT
from tests.fixtures.stores import fetch_all

PAGES: Final = [ROOT / "docs" / name for name in ("django.md", "flask.md", "sqlalchemy.md")]

pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_the_path_is_short(page):
    """From pip install to the first job in status, there are at most 20 lines to write, and 5 commands to type."""
    steps = steps_of(page)
    commands = [step.text for step in steps if isinstance(step, Command)]
    lines = [line for step in steps if isinstance(step, File) for line in step.lines if line.strip()]
    assert commands[0].startswith("pip install ")
    assert " status" in commands[-1]
    assert len(commands) <= 5, commands
    assert 0 < len(lines) <= 20, len(lines)


def test_the_path_leads_to_a_job(page, newcomer, database):
    """Who does what the page says has the job run by a request, and seen in status; a request that fails adds none."""
    steps = steps_of(page)
    for step in steps:
        newcomer.do(step)
        if isinstance(step, Address):
            newcomer.hear("a mail to")  # the log of requests may come in between before the name

    [again] = [step for step in steps if isinstance(step, Address)]
    assert newcomer.open(again.path) == 500
    with psycopg.connect(database, autocommit=True) as connection:
        assert fetch_all(connection, "select type, payload from worker.job") == [("welcome", "ann")]
