"""This library as a contestant: ``python -m tests.benchmarks.contestants.ours WORK DSN``; see contract.py."""

import argparse
import importlib
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import jobqueue_pg
from tests.benchmarks import contract
from tests.benchmarks.contestants.claiming import claim
from tests.benchmarks.contestants.draining import drain
from tests.benchmarks.contestants.handlers import JOB_TYPE
from tests.benchmarks.contestants.idling import idle
from tests.benchmarks.contestants.ours_adding import bulk, enqueue
from tests.benchmarks.contestants.pacing import latencies
from tests.benchmarks.contestants.worker_processes import peak_bytes


def imports(_: argparse.Namespace) -> dict[str, int]:
    """Do nothing, having imported all that a worker process imports."""
    importlib.import_module("tests.benchmarks.contestants.ours_worker")
    return {"peak_bytes": peak_bytes()}


def latency(options: argparse.Namespace) -> dict[str, Any]:
    """Enqueue jobs at a pace."""
    jobqueue_pg.migrate(options.dsn)
    with jobqueue_pg.connect(options.dsn) as service:

        def feed(number: int) -> str:
            service.enqueue(JOB_TYPE, {"number": number})
            return str(number)

        return latencies("ours_prompt_worker", feed, options)


WORKS: Final[Mapping[str, contract.Work]] = {
    "drain": partial(drain, "ours_worker"),
    "enqueue": enqueue,
    "bulk": bulk,
    "latency": latency,
    "claim": claim,
    "idle": idle,
    "imports": imports,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what our own contestants can be told besides."""
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--handler", default="noop", help="what a job does: noop, wait:MS or burn:MS")
    parser.add_argument("--joined", action="store_true", help="add within transactions of the caller's")
    parser.add_argument("--rare", action="store_true", help="claim a hundred rare types")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to be idle")
    parser.add_argument("--old-snapshot", action="store_true", help="have another session hold an old snapshot")


if __name__ == "__main__":
    sys.exit(contract.run(WORKS, add_options))
