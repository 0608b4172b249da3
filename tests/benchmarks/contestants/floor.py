"""The least that can be done on the same tables: ``python -m tests.benchmarks.contestants.floor WORK DSN``."""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import psycopg

import jobqueue_pg
from tests.benchmarks import contract
from tests.benchmarks.contestants.draining import drain
from tests.benchmarks.contestants.floor_adding import INSERT, bulk, enqueue, row_of
from tests.benchmarks.contestants.ours import add_options
from tests.benchmarks.contestants.pacing import latencies


def latency(options: argparse.Namespace) -> dict[str, Any]:
    """Insert rows at a pace."""
    jobqueue_pg.migrate(options.dsn)
    with psycopg.connect(options.dsn, autocommit=True) as connection:

        def feed(number: int) -> str:
            row = row_of(number)
            connection.execute(INSERT, row, prepare=True)
            return str(row[0])

        return latencies("floor_prompt_worker", feed, options)


WORKS: Final[Mapping[str, contract.Work]] = {
    "drain": partial(drain, "floor_worker"),
    "enqueue": enqueue,
    "bulk": bulk,
    "latency": latency,
}

if __name__ == "__main__":
    sys.exit(contract.run(WORKS, add_options))
