"""A worker process of a chaos run: it writes down each run, and works until its stdin is closed.

Arguments: the conninfo, and a JSON object with ``directory``, ``threads``, ``lanes``, ``batch_size`` and
``django``: whether the process is one of a Django project.
"""

import json
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import jobqueue_pg
from jobqueue import BackOff, Discard, Fixed, JobContext, Registry, Service, Snooze, WorkerPool
from jobqueue.errors import BackendError, JobInterruptedError, LostClaimError
from tests.integration.chaos_parts import django_project
from tests.integration.chaos_parts.plan import DJANGO_TYPE, SCHEDULES
from tests.integration.chaos_parts.recorder import Recorder
from tests.integration.chaos_parts.settings import RETENTION, worker_settings

_SOON = timedelta(seconds=0.2)
_TICK = 0.02
_NEVER = threading.Event()


class PlannedError(Exception):
    """A run failed because its job was to fail."""


def recorded(recorder: Recorder, act: Callable[..., object]) -> Callable[..., object]:
    """Make a handler of *act*; name the claim in what it leads to, so that no other claim can have led to it."""

    def handle(ctx: JobContext, payload: dict[str, Any]) -> object:
        def note(what: str, **facts: Any) -> None:
            recorder.note(what, job=ctx.job.id, claim=ctx.job.claim_id, type=ctx.job.type, **facts)

        note("run began")
        outcome = "error"
        try:
            result = act(ctx, payload.get("seconds", 0), payload.get("times", 0))
            outcome = {Snooze: "snoozed", Discard: "discarded"}.get(type(result), "finished")
        except PlannedError as error:
            outcome = "failed"
            raise PlannedError(f"{error} (claim {ctx.job.claim_id})") from None
        except BackOff:
            outcome = "failed"
            raise
        except (LostClaimError, JobInterruptedError):
            outcome = "interrupted"
            raise
        finally:
            note("run ended", outcome=outcome, is_lost=ctx.is_lost)
        return {"claim": str(ctx.job.claim_id)} if outcome == "finished" else result

    return handle


def steady(ctx: JobContext, seconds: float, times: int) -> None:
    """End early when the run is not wanted any more, as a good handler does."""
    for _ in range(round(seconds / _TICK)):
        _NEVER.wait(_TICK)
        ctx.check()


def deaf(ctx: JobContext, seconds: float, times: int) -> None:
    """Go on to the end, whatever becomes of the claim."""
    _NEVER.wait(seconds)


def flaky(ctx: JobContext, seconds: float, times: int) -> None:
    steady(ctx, seconds, times)
    if ctx.job.current_retry_count < times:
        raise PlannedError(f"failure {ctx.job.current_retry_count + 1} of {times}")


def hopeless(ctx: JobContext, seconds: float, times: int) -> None:
    raise PlannedError("failure")


def snoozing(ctx: JobContext, seconds: float, times: int) -> Snooze | None:
    steady(ctx, seconds, times)
    return Snooze(_SOON) if ctx.job.run_count < times else None


def discarding(ctx: JobContext, seconds: float, times: int) -> Discard:
    return Discard(f"claim {ctx.job.claim_id}")


def backing_off(ctx: JobContext, seconds: float, times: int) -> None:
    """Have all processes leave the type alone for a while, and then succeed."""
    steady(ctx, seconds, times)
    if ctx.job.current_retry_count < times:
        raise BackOff(f"failure {ctx.job.current_retry_count + 1} of {times} (claim {ctx.job.claim_id})", shared=True)


def complete(ctx: JobContext, seconds: float, times: int) -> None:
    assert ctx.bundle() is not None


def atomic(ctx: JobContext, seconds: float, times: int) -> None:
    """Have an effect, and another job, in the transaction of the run."""
    facts = [ctx.job.id, ctx.job.claim_id]
    ctx.connection.execute("insert into evidence.effect (job_id, claim_id) values (%s, %s)", facts)
    _NEVER.wait(seconds / 2)
    assert ctx.service is not None
    payload = {"seconds": 0, "times": 0, "of_job": str(ctx.job.id), "of_claim": str(ctx.job.claim_id)}
    ctx.service.enqueue("follow-up", payload, connection=ctx.connection)
    _NEVER.wait(seconds / 2)


def atomic_flaky(ctx: JobContext, seconds: float, times: int) -> None:
    """Have an effect, and fail, which must undo it."""
    atomic(ctx, seconds, times)
    if ctx.job.current_retry_count < times:
        raise PlannedError(f"failure {ctx.job.current_retry_count + 1} of {times}")


def make_registry(recorder: Recorder, *, is_django: bool) -> Registry:
    """Register the handlers of all types."""
    registry = Registry()
    acts = {
        "steady": steady,
        "deaf": deaf,
        "flaky": flaky,
        "hopeless": hopeless,
        "snoozing": snoozing,
        "discarding": discarding,
        "follow-up": steady,
        "complete": complete,
        "backing off": backing_off,
        **dict.fromkeys(SCHEDULES, steady),
    }
    for type_, act in acts.items():
        registry.handler(type_, retry=Fixed(_SOON))(recorded(recorder, act))
    for type_, act in {"atomic": atomic, "atomic flaky": atomic_flaky}.items():
        registry.handler(type_, retry=Fixed(_SOON), atomic=True)(recorded(recorder, act))
    if is_django:
        handler = registry.handler(DJANGO_TYPE, retry=Fixed(_SOON), atomic="default")
        handler(recorded(recorder, django_project.atomic))
    return registry


def connect(conninfo: str, batch_size: int, *, is_django: bool) -> Service:
    """Connect as soon as there is a server, as a supervisor would that starts us again and again."""
    while True:
        try:
            if is_django:
                return django_project.connect(conninfo, batch_size)
            settings = worker_settings(batch_size)
            return jobqueue_pg.connect(conninfo, origin="worker", settings=settings, retention=RETENTION)
        except BackendError:
            _NEVER.wait(0.2)


def main() -> None:
    conninfo, options = sys.argv[1], json.loads(sys.argv[2])
    recorder = Recorder(Path(options["directory"]), "worker")
    is_django = options["django"]
    with closing(connect(conninfo, options["batch_size"], is_django=is_django)) as service:
        lanes, registry = options["lanes"], make_registry(recorder, is_django=is_django)
        with WorkerPool(service, registry, threads=options["threads"], lanes=lanes):
            recorder.note("worker began")
            sys.stdin.read()
        health = service.health()
        counts = {name: health[name] for name in ("lost_claims", "refused_outcomes")}
        recorder.note("worker ended", **counts)


if __name__ == "__main__":
    main()
