"""Backing off from a type: for how long, how often it doubles, what ends it."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import attrs
import pytest

import jobqueue
from jobqueue import BackOff, Fixed, Job, Registry, State, WorkerPool, WorkerSettings
from jobqueue.errors import UnavailableError
from jobqueue.execution import run_error_of
from jobqueue.models import new_id
from jobqueue.outcomes import Outcome, RunError
from jobqueue.worker.back_offs import BackOffs
from tests.fixtures.rig import LONG
from tests.fixtures.waiting import wait_until


class Monotonic:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Everybody:
    """What is told of back-offs to all processes."""

    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []
        self.error: Exception | None = None

    def back_off(self, job_type, reason, ran_for) -> None:
        if self.error:
            raise self.error
        self.said.append((job_type, reason, str(ran_for)))

    def end_back_off(self, job_type) -> None:
        if self.error:
            raise self.error
        self.said.append((job_type,))


@pytest.fixture
def clock():
    return Monotonic()


@pytest.fixture
def everybody():
    return Everybody()


@pytest.fixture
def back_offs(clock, everybody):
    return BackOffs(everybody, clock)


def job(type="t"):
    return attrs.evolve(Job.new(type, 1), started_at=datetime.now(UTC), claim_id=new_id())


def note(back_offs, outcome, ran_for, type="t"):
    """Do what a worker does when a run has ended."""
    if back_offs.note_end(job(type), outcome, ran_for):
        back_offs.tell_others(job(type), outcome, ran_for)


def fail(back_offs, clock, ran_for=0.0, *, shared=False, type="t"):
    """Have a job that ran so long ask for a back-off; return for how long that holds."""
    error = RunError(message="429", back_off=True, back_off_is_shared=shared)
    note(back_offs, Outcome.failed(job(type), error), ran_for, type)
    return round(back_offs.next_end(clock.seconds) - clock.seconds, 6)


def succeed(back_offs, type="t"):
    note(back_offs, Outcome.finished(job(type)), 0.01, type)


def test_it_doubles_up_to_a_minute(back_offs, clock):
    """100 ms after the first failure, counted from the end of the job, and 60 s from the eleventh on."""
    seen = []
    for _ in range(12):
        seen.append(fail(back_offs, clock))
        assert back_offs.closed() == {"t"}
        clock.seconds += seen[-1] + 0.001
        assert back_offs.closed() == set()
    assert seen == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]


def test_jobs_that_run_at_the_same_time_count_once(back_offs, clock):
    """Failures of jobs that were started before the last pause had ended have it go on, and do not double it."""
    assert [fail(back_offs, clock, 0.05) for _ in range(8)] == [0.1] * 8
    clock.seconds += 0.5
    assert fail(back_offs, clock, 0.45) == 0.1
    clock.seconds += 0.2
    assert fail(back_offs, clock, 0.05) == 0.2


def test_a_success_begins_anew(back_offs, clock):
    """After the first success the next pause is the shortest again; what goes on goes on to its end."""
    for _ in range(4):
        clock.seconds += fail(back_offs, clock) + 0.001
    succeed(back_offs)
    assert fail(back_offs, clock) == 0.1
    succeed(back_offs)
    assert back_offs.closed() == {"t"}
    assert fail(back_offs, clock) == 0.1
    clock.seconds += 0.101
    assert fail(back_offs, clock) == 0.2


def test_other_ends_change_nothing(back_offs, clock):
    """A failure that does not ask for it, a snooze, a discard, and other types, neither begin nor end one."""
    clock.seconds += fail(back_offs, clock) + 0.001
    plain = RunError(message="no luck")
    for outcome in (
        Outcome.failed(job(), plain),
        Outcome.snoozed(job(), timedelta(1)),
        Outcome.discarded(job(), "why"),
        Outcome.released(job()),
        None,
    ):
        note(back_offs, outcome, 0.01)
    succeed(back_offs, "other")
    assert fail(back_offs, clock, type="other") == 0.1
    assert fail(back_offs, clock) == 0.1
    assert back_offs.closed() == {"t", "other"}
    clock.seconds += 0.15
    assert fail(back_offs, clock) == 0.2


def test_what_is_shared_is_told(back_offs, everybody, clock):
    """The store keeps it, and hears of the first success, also of one that another process has begun; not of others."""
    assert [fail(back_offs, clock, 1.5, shared=True) for _ in range(2)] == [0.1, 0.1]
    del everybody.said[1:]
    for _ in range(3):
        succeed(back_offs)
    assert everybody.said == [("t", "back-off: 429", "0:00:01.500000"), ("t",)]
    back_offs.heed({"u"})
    succeed(back_offs)
    succeed(back_offs, "u")
    succeed(back_offs, "u")
    assert everybody.said[2:] == [("u",)]


def test_without_a_store_it_is_kept_here(back_offs, everybody, clock):
    """When the store does not answer, this process backs off alone, and errors of it reach nobody."""
    everybody.error = UnavailableError("away")
    assert fail(back_offs, clock, shared=True) == 0.1
    clock.seconds += 0.15
    assert fail(back_offs, clock, shared=True) == 0.2
    back_offs.heed({"t"})
    succeed(back_offs)


class RateLimitError(Exception):
    backoff = True
    shared = True


class MethodError(Exception):
    def backoff(self) -> bool:
        return True


class BrokenError(Exception):
    @property
    def backoff(self) -> bool:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (BackOff("429"), (True, False)),
        (BackOff("429", shared=True), (True, True)),
        (RateLimitError("429"), (True, True)),
        (ValueError("429"), (False, False)),
        (MethodError("429"), (False, False)),
        (BrokenError("429"), (False, False)),
    ],
)
def test_which_errors_ask_for_it(error, asked):
    """A BackOff, and any other error with a true attribute; what cannot be read, or is a method, does not."""
    kept = run_error_of(error)
    assert (kept.back_off, kept.back_off_is_shared, kept.message) == (*asked, "429")


def test_wrapped_errors_ask_for_it():
    """An error that was raised from a BackOff is one; it may be its own cause's cause."""
    outer = ValueError("wrapped")
    outer.__cause__ = BackOff("429", shared=True)
    assert (run_error_of(outer).back_off, run_error_of(outer).back_off_is_shared) == (True, True)
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert not run_error_of(first).back_off


# --- in worker pools


@pytest.fixture
def service():
    settings = WorkerSettings(poll_interval=LONG, batch_size=1)
    with closing(jobqueue.connect("memory://", settings=settings, origin="tests")) as service:
        yield service


@pytest.mark.parametrize("handled_as", ["mail", "*"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_pool_backs_off(service, handled_as, shared, monkeypatch):
    """After a failure that asks for it nothing more of the type is claimed until its time has come; others are.

    The failed job is retried by its policy. Nobody polls.
    """
    # Long enough for a thread that stands still before it looks for others.
    monkeypatch.setattr("jobqueue.worker.back_offs._SHORTEST", 0.5)
    monkeypatch.setattr("jobqueue.backends.memory.paused.SHORTEST_BACK_OFF", timedelta(seconds=0.5))
    registry, ran = Registry(), []

    def handle(_, job):
        ran.append(job.payload)
        if job.payload == "bad" and ran.count("bad") == 1:
            raise BackOff("429", shared=shared)

    registry.register(handled_as, handle)
    registry.register("other", handle)
    bad = service.enqueue("mail", "bad", priority=2, max_retry_count=1, retry=Fixed(timedelta(0)))
    service.enqueue("mail", "good", priority=1)
    service.enqueue("other", "other")
    with WorkerPool(service, registry, threads=1):
        wait_until(lambda: len(ran) == 4)
        wait_until(lambda: service.get_job(bad.id).stopped)
    assert ran == ["bad", "other", "bad", "good"]
    assert [service.get_job(bad.id).state, service.get_job(bad.id).run_count] == [State.SUCCEEDED, 2]
    assert service.paused_types() == []
