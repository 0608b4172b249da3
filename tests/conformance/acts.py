"""What can happen to a claimed job: the acts that the suite tries in every combination."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jobqueue import Job
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind, RunError
from tests.fixtures.backends import Backend
from tests.fixtures.stores import make_job

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)

# Both lie on the same side of the clocks of all backends, whether a test moves them or not.
PAST: Final = datetime(2001, 1, 1, tzinfo=UTC)
FUTURE: Final = datetime(2100, 1, 1, tzinfo=UTC)
CALENDAR: Final = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
"""The first and the last moment that Python knows."""

DEAD_FOR: Final = timedelta(milliseconds=1)
"""Silence counts only while the queue could hear, and the one of a test may have been there for a moment only."""

MORTAL: Final = Claimant(name="dead:1:t", lease=DEAD_FOR)
"""Who is taken for dead as soon as the clock moves on."""

ERROR: Final = RunError(message="broken", type="app.Error", traceback="Traceback: ...", data_json='{"code": 7}')

OUTCOMES: Final[dict[OutcomeKind, Callable[[Job], Outcome]]] = {
    OutcomeKind.FINISHED: lambda job: Outcome.finished(job, '{"ok": true}'),
    OutcomeKind.FAILED: lambda job: Outcome.failed(job, ERROR),
    OutcomeKind.RETRY: lambda job: Outcome.retry(job, ERROR, delay=timedelta(minutes=1)),
    OutcomeKind.SNOOZED: lambda job: Outcome.snoozed(job, HOUR),
    OutcomeKind.RELEASED: Outcome.released,
    OutcomeKind.DISCARDED: lambda job: Outcome.discarded(job, "not worth it"),
}

STOPPING: Final = {OutcomeKind.FINISHED, OutcomeKind.FAILED, OutcomeKind.DISCARDED}

Act = Callable[[Backend, Job], None]


def waits(backend: Backend, job: Job) -> None:
    backend.save(Outcome.released(job))


def runs(backend: Backend, job: Job) -> None:
    pass


def succeeded(backend: Backend, job: Job) -> None:
    backend.save(Outcome.finished(job, "1"))


def failed(backend: Backend, job: Job) -> None:
    backend.save(Outcome.failed(job, ERROR))


def retries(backend: Backend, job: Job) -> None:
    backend.save(Outcome.retry(job, ERROR, delay=HOUR))


def snoozes(backend: Backend, job: Job) -> None:
    backend.save(Outcome.snoozed(job, HOUR))


def discarded(backend: Backend, job: Job) -> None:
    backend.save(Outcome.discarded(job, "no"))


def cancelled(backend: Backend, job: Job) -> None:
    backend.store.cancel_jobs([job.id])


def reaped(backend: Backend, job: Job) -> None:
    """For jobs that were claimed by MORTAL."""
    backend.clock.advance(SECOND)
    backend.worker_store.reap_jobs(DEAD_FOR, 3)


def given_up(backend: Backend, job: Job) -> None:
    """For jobs that were claimed by MORTAL."""
    backend.clock.advance(SECOND)
    backend.worker_store.reap_jobs(DEAD_FOR, 0)


FATES: Final[list[Act]] = [
    waits, runs, succeeded, failed, retries, snoozes, discarded, cancelled, reaped, given_up,
]  # fmt: skip
"""What can have become of a job that MORTAL had claimed."""

STOPPED: Final = {succeeded, failed, discarded, cancelled, given_up}
FAILED: Final = {failed, given_up}
WAITING: Final = {waits, retries, snoozes, reaped}


def with_fate(backend: Backend, fate: Act, **values: Any) -> Job:
    """Return a job of which, after it was claimed and had said how far it was, *fate* is what became."""
    (job,) = backend.add(make_job(**values))
    claimed = backend.claim_one(claimant=MORTAL)
    assert backend.store.save_progress(claimed.fence, "0.5")
    fate(backend, claimed)
    backend.clock.advance(SECOND)
    return job
