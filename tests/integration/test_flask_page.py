"""The examples of docs/flask.md that are not on its way to the first job: each is a whole program, and runs."""

import re
from typing import Final

import psycopg

from tests.fixtures.guides import PATIENCE, SECTION, File, steps_of
from tests.fixtures.pages import ROOT, text_of
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until

PAGE: Final = ROOT / "docs" / "flask.md"
FACTORY: Final = "## In an application factory\n"


def test_each_example_is_run():
    """There are none but those of the sections that tests go through."""
    run = [step for section in (SECTION, FACTORY) for step in steps_of(PAGE, section) if isinstance(step, File)]
    assert len(run) == len(re.findall("^```python$", text_of(PAGE), re.MULTILINE)) == 2


def test_an_application_factory(newcomer, database):
    """The factory serves, and its atomic handler has done its work once when its job has succeeded."""
    for step in steps_of(PAGE, FACTORY):
        newcomer.do(step)
    with psycopg.connect(database, autocommit=True) as connection:
        ended = "select type from worker.job where stopped_at is not null and error_msg is null"
        wait_until(lambda: fetch_all(connection, ended) == ["ship"], PATIENCE, message="that an order is shipped")
        assert fetch_all(connection, 'select parcels from "order"') == [1]
