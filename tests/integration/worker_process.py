"""A worker process for tests: it notes every run in a table, says "ready", and works until its stdin is closed.

Arguments: the conninfo, and a JSON object with ``threads``, ``heartbeat`` and ``dead_for`` (seconds), ``batch_size``.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import psycopg2

# Run by its path, it finds this directory on sys.path, and not the packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jobqueue_pg
from jobqueue import JobContext, Registry, WorkerPool, WorkerSettings

_local = threading.local()


def note(conninfo: str, ctx: JobContext, event: str) -> None:
    """Write down that something has happened to a run, on a connection of the thread's own."""
    if not hasattr(_local, "connection"):
        _local.connection = psycopg.connect(conninfo, autocommit=True)
    _local.connection.execute(
        "insert into run (job_id, claim_id, pid, event) values (%s, %s, %s, %s)",
        [ctx.job.id, ctx.job.claim_id, os.getpid(), event],
    )


def register_charge(registry: Registry, conninfo: str) -> Callable[[], AbstractContextManager[Any]]:
    """Register a handler that works in a transaction of the application's; return how that is opened."""

    @contextmanager
    def own() -> Generator[Any]:
        with closing(psycopg2.connect(conninfo)) as connection, connection:
            yield connection

    @registry.handler("charge", atomic="own")
    def charge(ctx: JobContext, seconds: float) -> int:
        with ctx.connection.cursor() as cursor:
            cursor.execute(
                "insert into run (job_id, claim_id, pid, event) values (%s, %s, %s, 'charged')",
                [str(ctx.job.id), str(ctx.job.claim_id), os.getpid()],
            )
        note(conninfo, ctx, "began")
        threading.Event().wait(0 if ctx.job.rescue_count else seconds)
        return os.getpid()

    return own


def main() -> None:
    conninfo, options = sys.argv[1], json.loads(sys.argv[2])
    registry = Registry()

    @registry.handler("quick")
    def quick(ctx: JobContext, number: int) -> int:
        note(conninfo, ctx, "run")
        return number

    @registry.handler("slow")
    def slow(ctx: JobContext, seconds: float) -> int:
        note(conninfo, ctx, "began")
        threading.Event().wait(seconds)
        note(conninfo, ctx, "lost" if ctx.is_lost else "ended")
        return os.getpid()

    @registry.handler("first slow")
    def first_slow(ctx: JobContext, seconds: float) -> int:
        # As long as it is told the first time, and no time at all when it was rescued.
        return slow(ctx, 0 if ctx.job.rescue_count else seconds)

    @registry.handler("member")
    def member(ctx: JobContext, *, seconds: float, fails: bool = False) -> None:
        # Ends early when the run is not wanted any more, as a good handler does.
        for _ in range(round(seconds / 0.02)):
            threading.Event().wait(0.02)
            ctx.check()
        if fails:
            raise ValueError("as it was told")

    @registry.handler("complete")
    def complete(ctx: JobContext, _: object) -> dict[str, int]:
        note(conninfo, ctx, "run")
        bundle = ctx.bundle()
        assert bundle is not None
        return {"members": len(bundle.jobs), "stopped": sum(job.stopped for job in bundle.jobs)}

    @registry.handler("poison")
    def poison(ctx: JobContext, _: int) -> None:
        note(conninfo, ctx, "began")
        os.kill(os.getpid(), signal.SIGKILL)

    own = register_charge(registry, conninfo)
    service = jobqueue_pg.connect(
        conninfo,
        origin="worker process",
        transactions={"own": own},
        settings=WorkerSettings(
            heartbeat_interval=timedelta(seconds=options.get("heartbeat", 10)),
            dead_for=timedelta(seconds=options.get("dead_for", 60)),
            poll_interval=timedelta(seconds=options.get("poll_interval", 5)),
            batch_size=options.get("batch_size", 1),
        ),
    )
    with service:
        with WorkerPool(service, registry, threads=options.get("threads", 4)):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            sys.stdin.read()
        health = service.health()
        sys.stdout.write(json.dumps({name: health[name] for name in ("lost_claims", "refused_outcomes")}))


if __name__ == "__main__":
    main()
