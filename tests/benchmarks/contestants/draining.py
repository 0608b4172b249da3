"""A drain from the first claim to the last row final, by worker processes that another module is the program of."""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

import jobqueue
import jobqueue_pg
from tests.benchmarks.contestants.board import Board, board_for
from tests.benchmarks.contestants.handlers import JOB_TYPE
from tests.benchmarks.contestants.usage import WATCHER, Usage
from tests.benchmarks.contestants.worker_processes import WorkerProcess

_LONGEST: Final = 300.0
_LOOK_EVERY: Final = 0.002
_NEARLY: Final = 64  # threads may store their counts out of order; what is still running is about to end

_IS_LEFT: Final = "select exists (select from worker.job where stopped_at is null)"
_FINISHED: Final = """
select count(*) from worker.job
where "type" = %s and started_at is not null and stopped_at is not null and error_msg is null and run_count = 1
"""


def drain(module: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run the jobs, make sure that each was run once and is final, and tell how long it took and what was used."""
    jobqueue_pg.migrate(options.dsn)
    with ExitStack() as stack:
        board = stack.enter_context(board_for(options.processes))
        workers = [stack.enter_context(_worker(module, options, board, place)) for place in range(options.processes)]
        for worker in workers:
            worker.wait_until_ready()
        load(options.dsn, options.jobs)
        if options.old_snapshot:
            stack.enter_context(_old_snapshot(options.dsn))
        seconds, usage = _race(options, board, workers)
        used = usage.until_now()
        ended = [worker.end() for worker in workers]
        _check(options.dsn, board, options.jobs)
        used |= usage.after_the_end()
    return {
        "seconds": seconds,
        "jobs": options.jobs,
        "cpu_seconds": sum(worker["cpu_seconds"] for worker in ended),
        "peak_bytes": max(worker["peak_bytes"] for worker in ended),
        **used,
    }


def _race(options: argparse.Namespace, board: Board, workers: list[WorkerProcess]) -> tuple[float, Usage]:
    """Let the workers go, and wait until all is final; the looks are one transaction, which counts as one commit."""
    with _watching(options.dsn) as connection, connection.transaction():
        # By the simple protocol: the portal of a prepared statement would hold its snapshot until the next one, and
        # nothing that dies meanwhile could be cleared away.
        watcher = psycopg.ClientCursor(connection)
        watcher.execute(_IS_LEFT)
        usage = Usage(options.dsn)
        began_at = time.monotonic()
        for worker in workers:
            worker.go()
        # Without a statement, until it is worth while to look at the database.
        _wait(lambda: board.total >= options.jobs - _NEARLY, workers)
        _wait(lambda: watcher.execute(_IS_LEFT).fetchone() == (False,), workers)
        return time.monotonic() - began_at, usage


def load(dsn: str, jobs: int) -> None:
    """Add jobs, and let nobody hear of them."""
    with jobqueue_pg.connect(dsn) as service, psycopg.connect(dsn) as connection:
        connection.execute("set local jobqueue.notify = 'off'")
        service.add_jobs(
            [jobqueue.Job.new(JOB_TYPE, {"number": number}) for number in range(jobs)], connection=connection
        )
    with _watching(dsn) as connection:
        connection.execute("vacuum (analyze) worker.job")


def _worker(module: str, options: argparse.Namespace, board: Board, place: int) -> WorkerProcess:
    arguments = [options.dsn, "--handler", options.handler, "--board", board.path, "--place", str(place)]
    for name in ("batch", "threads"):
        if getattr(options, name) is not None:
            arguments += [f"--{name}", str(getattr(options, name))]
    return WorkerProcess(module, arguments, [board.descriptor])


@contextmanager
def _old_snapshot(dsn: str) -> Iterator[None]:
    """Have a session that keeps every row version that comes to be from now on."""
    with _watching(dsn) as connection, connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select count(*) from worker.job")
        yield


def _wait(is_over: Callable[[], bool], workers: list[WorkerProcess]) -> None:
    never, deadline = threading.Event(), time.monotonic() + _LONGEST
    while not is_over():
        if time.monotonic() > deadline or any(worker.has_ended for worker in workers):
            raise RuntimeError("the drain did not come to its end")
        never.wait(_LOOK_EVERY)


def _check(dsn: str, board: Board, jobs: int) -> None:
    with _watching(dsn) as watcher:
        finished = watcher.execute(_FINISHED, [JOB_TYPE]).fetchone()
    if finished != (jobs,) or board.total < jobs - _NEARLY:
        raise RuntimeError(f"of {jobs} jobs, {finished} are final after one run, and about {board.total} were run")


def _watching(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(make_conninfo(dsn, application_name=WATCHER), autocommit=True)
