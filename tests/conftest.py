"""Fixtures that every test may use: one plugin for each resource."""

import pytest

pytest_plugins = [
    "tests.fixtures.threads",
    "tests.fixtures.pg",
    "tests.fixtures.stores",
    "tests.fixtures.backends",
    "tests.fixtures.workers",
    "tests.fixtures.processes",
    "tests.fixtures.servers",
    "tests.fixtures.stages",
    "tests.fixtures.effects",
    "tests.fixtures.pgbouncer",
    "tests.fixtures.rig",
    "tests.fixtures.roles",
    "tests.fixtures.scheduling",
    "tests.fixtures.gunicorn",
    "tests.fixtures.django",
    "tests.fixtures.django_work",
    "tests.fixtures.shop",
    "tests.fixtures.commands",
    "tests.fixtures.flask",
    "tests.fixtures.guides",
]

_LONGEST_FIRST = ("test_one_minute_of_chaos", "test_on_a_server_of_its_own", "test_on_a_database_of_somebody")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest: else one process has to go through them when the others have ended."""
    items.sort(key=lambda item: not item.name.startswith(_LONGEST_FIRST))
