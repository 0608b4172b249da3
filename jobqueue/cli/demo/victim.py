"""The second worker process, which is killed while it holds jobs: a handle on it, and what runs in it.

It takes one job per thread, reports each, and works on none of them to the end, so that whenever it is killed it holds
jobs, on slow machines and on fast ones. It ends by itself when the process that started it is gone.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Final, NamedTuple, Self
from uuid import UUID

import jobqueue_pg
from jobqueue.cli.demo.work import SCHEMA, SETTINGS, SourceFile, registry_with
from jobqueue.errors import JobQueueError
from jobqueue.job_context import JobContext
from jobqueue.worker.pool import WorkerPool

JOBS_TO_HOLD: Final = 3

_PATIENCE: Final = 60.0
_CHECK_INTERVAL: Final = 0.1


class VictimError(JobQueueError):
    """The second worker process did not do what it was there for."""


class Order(NamedTuple):
    """What the second process is to work on."""

    conninfo: str
    job_type: str


class Victim:
    """The second worker process, from ``with`` on; at the end of the block it is gone."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is not for it
        )
        assert self._process.stdin is not None
        # Not as an argument, which everybody could read: there may be a password in it.
        self._process.stdin.write(json.dumps(self._order).encode() + b"\n")
        self._process.stdin.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        with self._process:
            pass

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_for_jobs(self) -> Sequence[UUID]:
        """Wait until it holds a job in each of its threads; return their ids.

        Raises:
            VictimError: it ended, or took too long.
        """
        assert self._process.stdout is not None
        reported = b""
        deadline = time.monotonic() + _PATIENCE
        while reported.count(b"\n") < JOBS_TO_HOLD:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise VictimError(f"the second worker process did not get hold of its jobs within {_PATIENCE:g} s")
            if not (chunk := os.read(self._process.stdout.fileno(), 4096)):
                raise VictimError(f"the second worker process ended by itself (exit code {self._process.wait()})")
            reported += chunk
        return [UUID(line.decode()) for line in reported.split()]

    def kill(self) -> None:
        """Send it SIGKILL, and wait until it is gone; safe twice."""
        self._process.kill()
        self._process.wait()


class Holder:
    """Handles jobs by holding them."""

    def __init__(self) -> None:
        self._never = threading.Event()

    def run(self, ctx: JobContext, file: SourceFile) -> None:  # noqa: ARG002 - the others' payload
        """Report the job, and hold it until the pool stops."""
        os.write(sys.stdout.fileno(), f"{ctx.job.id}\n".encode())
        while not self._never.wait(_CHECK_INTERVAL):
            ctx.check()


def main() -> None:
    """Take jobs, until the standard input is closed."""
    order = Order(*json.loads(sys.stdin.readline()))
    registry = registry_with(order.job_type, Holder().run)
    with closing(jobqueue_pg.connect(order.conninfo, schema=SCHEMA, settings=SETTINGS)) as service:
        pool = WorkerPool(service, registry, threads=JOBS_TO_HOLD)
        pool.start()
        sys.stdin.read()
        pool.finish(0)


if __name__ == "__main__":
    try:
        main()
    except JobQueueError as error:
        sys.exit(f"the second worker process: {error}")
