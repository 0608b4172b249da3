"""What worker threads cost that have nothing to do."""

import argparse
import threading
from typing import Any, Final

import jobqueue
import jobqueue_pg
from tests.benchmarks.contestants.board import board_for
from tests.benchmarks.contestants.usage import Usage
from tests.benchmarks.contestants.worker_processes import WorkerProcess

_SECONDS_TO_SETTLE: Final = 2.0


def idle(options: argparse.Namespace) -> dict[str, Any]:
    """Have a pool wait for ``options.seconds``; tell its CPU time, and its commits for each poll interval."""
    jobqueue_pg.migrate(options.dsn)
    never, poll_seconds = threading.Event(), jobqueue.WorkerSettings().poll_interval.total_seconds()
    with board_for(1) as board:
        arguments = [options.dsn, "--threads", str(options.threads), "--board", board.path]
        with WorkerProcess("ours_worker", arguments, [board.descriptor]) as worker:
            worker.wait_until_ready()
            worker.go()
            # A session tells of its first commits with the first one that is a second later.
            never.wait(poll_seconds + _SECONDS_TO_SETTLE)
            cpu, usage = worker.cpu_seconds(), Usage(options.dsn)
            never.wait(options.seconds)
            cpu, used = worker.cpu_seconds() - cpu, usage.until_now()
            worker.end()
    return {
        "seconds": options.seconds,
        "cpu_seconds": cpu,
        "cpu_percent": 100 * cpu / options.seconds,
        "commits_per_poll": used["commits_so_far"] * poll_seconds / options.seconds,
        "connections": used["connections"],
    }
