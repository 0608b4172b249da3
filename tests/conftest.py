"""Fixtures that every test may use: one plugin for each resource."""

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
]
