"""Latencies: jobs are added at a pace by one process, and begin in another one; the monotonic clock is that of both."""

import argparse
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from tests.benchmarks.contestants.usage import WATCHER
from tests.benchmarks.contestants.worker_processes import WorkerProcess
from tests.benchmarks.contract import percentiles

_WARM_UP: Final = 40
_WARM_UP_RATE: Final = 40.0
_LONGEST_END: Final = 60.0
_LOOK_EVERY: Final = 0.05
_IS_LEFT: Final = "select exists (select from worker.job where stopped_at is null)"

Feed = Callable[[int], str]
"""Adds the job of that number, and returns by what name the worker process will tell of it."""


def latencies(module: str, feed: Feed, options: argparse.Namespace) -> dict[str, Any]:
    """Add jobs at ``options.rate``, and tell how long each took until its handler began."""
    with WorkerProcess(module, [options.dsn, *_given(options, "batch"), *_given(options, "threads")]) as worker:
        worker.wait_until_ready()
        worker.go()
        _feed_at(_WARM_UP_RATE, _WARM_UP, feed)
        _wait_until_idle(options.dsn)
        added = _feed_at(options.rate, options.jobs, feed)
        _wait_until_idle(options.dsn)
        begun: dict[str, float] = worker.end()["begun"]
    if missing := added.keys() - begun.keys():
        raise RuntimeError(f"{len(missing)} of {len(added)} jobs never began")
    return percentiles([begun[name] - at for name, at in added.items()])


def _feed_at(rate: float, jobs: int, feed: Feed) -> dict[str, float]:
    """Add jobs, and return when each was about to be; whoever falls behind does not hurry to catch up."""
    never, added = threading.Event(), dict[str, float]()
    due_at = time.monotonic()
    for number in range(jobs):
        never.wait(max(0.0, due_at - time.monotonic()))
        at = time.monotonic()
        added[feed(number)] = at
        due_at = max(due_at + 1 / rate, at)
    return added


def _wait_until_idle(dsn: str) -> None:
    never, deadline = threading.Event(), time.monotonic() + _LONGEST_END
    with psycopg.connect(make_conninfo(dsn, application_name=WATCHER), autocommit=True) as watcher:
        while watcher.execute(_IS_LEFT).fetchone() != (False,):
            if time.monotonic() > deadline:
                raise RuntimeError("jobs are left that nobody runs")
            never.wait(_LOOK_EVERY)


def _given(options: argparse.Namespace, name: str) -> list[str]:
    value = getattr(options, name)
    return [] if value is None else [f"--{name}", str(value)]
