"""Draining a queue in memory: what is run, in which order, what time it is meanwhile, and what is raised."""

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

import jobqueue
from jobqueue import Discard, HandlerNotFoundError, JobBundle, JobContext, JobDesc, JobQueueError, Snooze
from jobqueue.events import JobStarted, RunEnded
from jobqueue.retry import Fixed
from jobqueue.testing import Clock, DrainError, assert_enqueued, drain, enqueued_jobs

HOUR = timedelta(hours=1)
START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def service():
    """The current service, on a queue in memory."""
    with closing(jobqueue.connect("memory://", origin="tests")) as service, jobqueue.use_service(service):
        yield service


@pytest.fixture
def clock():
    """A clock in force."""
    with Clock(START) as clock:
        yield clock


@pytest.fixture
def ran(registry):
    """What was run, as type and hours since START, by a handler for all types."""
    ran = []
    registry.register("*", lambda ctx, job: ran.append((job.type, (job.started_at - START) / HOUR)))
    return ran


def test_runs_here_by_priority(service, registry, clock):
    """Jobs are run in this thread, by priority, each claimed when the one before has ended."""
    seen = []

    @registry.handler("t")
    def work(number: int) -> None:
        seen.append((number, threading.current_thread()))
        if number == 1:
            jobqueue.enqueue("t", 9, priority=5)

    for number in (1, 2):
        service.enqueue("t", number)
    assert [run.payload for run in drain(registry=registry)] == [1, 9, 2]
    assert seen == [(number, threading.current_thread()) for number in (1, 9, 2)]


def test_time_passes_from_one_thing_to_the_next(service, registry, clock, ran):
    """What has become due since the last drain is done in the order of its moments, each at its own."""
    service.add_schedule("s", "tick", cron="30 * * * *")
    for hours in (2, 1, 3):
        service.enqueue(f"after {hours}", 1, delay=hours * HOUR)
    clock.advance(hours=2)
    drain(registry=registry)
    assert ran == [("tick", 0.5), ("after 1", 1.0), ("tick", 1.5), ("after 2", 2.0)]
    assert [job.type for job in enqueued_jobs()] == ["after 3"]


def test_ticks_of_declared_schedules(service, registry, clock):
    """A schedule of the code ticks when it would: none of its ticks is missed, however far the clock was moved."""
    at = []

    @registry.scheduled("hourly", cron="0 * * * *", overlap="skip", missed="skip")
    def hourly(ctx: JobContext) -> None:
        at.append(ctx.job.start_at or ctx.job.created_at)

    assert len(drain(registry=registry)) == 0
    clock.advance(hours=3)
    drain(registry=registry)
    assert at == [START + number * HOUR for number in (1, 2, 3)]


def test_retries_wait_for_the_clock(service, registry, clock):
    """A job that has failed stays as it is until its policy's moment; its runs then follow as they would have."""

    @registry.handler("t", retry=Fixed(HOUR), max_retry_count=2)
    def fail() -> None:
        raise ValueError("no")

    job = service.enqueue(fail, {})
    first = drain(registry=registry, raise_errors=False)
    assert [run.kind for run in first] == ["retry"]
    assert len(drain(registry=registry)) == 0
    assert service.get_job(job.id).state == "retrying"
    assert service.get_job(job.id).start_at == START + HOUR
    clock.advance(minutes=59)
    assert len(drain(registry=registry)) == 0
    clock.advance(hours=3)
    rest = drain(registry=registry, raise_errors=False)
    assert [(run.kind, str(run.error)) for run in rest] == [("retry", "no"), ("failed", "no")]
    assert service.get_job(job.id).stopped_at == START + 2 * HOUR


def test_snoozes_and_discards(service, registry, clock):
    """What handlers answer is heeded, and told of; neither is an error."""

    @registry.handler("snoozes")
    def snooze(ctx: JobContext) -> object:
        return None if ctx.job.run_count else Snooze(HOUR)

    registry.handler("gives up")(lambda: Discard("no use"))
    service.enqueue("snoozes", {})
    service.enqueue("gives up", {})
    drained = drain(registry=registry)
    assert [run.type for run in drained.snoozed] == ["snoozes"]
    assert [run.type for run in drained.discarded] == ["gives up"]
    clock.advance(HOUR)
    assert drain(registry=registry).types == ["snoozes"]


def test_an_error_ends_the_drain_when_it_is_saved(service, registry, clock):
    """What a handler raises is raised with a note of its job; the job has failed, and the next drain goes on."""

    @registry.handler("t")
    def work(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError("one")

    bad, good = service.enqueue("t", 1), service.enqueue("t", 2)
    with pytest.raises(ZeroDivisionError, match="one") as raised:
        drain(registry=registry)
    assert str(bad.id) in raised.value.__notes__[0]
    assert service.get_job(bad.id).state == "failed"
    assert [run.job for run in drain(registry=registry)] == [good]


def test_interrupts_are_raised_in_any_case(service, registry):
    """Who interrupts a test does not have it go on, whatever is to be done about errors."""

    @registry.handler("t")
    def work() -> None:
        raise KeyboardInterrupt

    service.enqueue("t", {})
    with pytest.raises(KeyboardInterrupt):
        drain(registry=registry, raise_errors=False)


def test_a_failure_without_an_error_of_the_handler(service, registry):
    """A result that is no JSON fails its job, and a DrainError says so."""
    registry.handler("t")(lambda: [object()])
    service.enqueue("t", {})
    with pytest.raises(DrainError, match="the result cannot be stored as JSON"):
        drain(registry=registry)


def test_a_job_that_enqueues_itself_for_ever(service, registry):
    """Is ended by an error that names it and says what to do."""
    registry.register("again", lambda ctx, job: jobqueue.enqueue("again", 1))
    service.enqueue("again", 1)
    with pytest.raises(DrainError, match=r"5 runs .* of type 'again'.* 5 x again: finished.* max_runs"):
        drain(registry=registry, max_runs=5)
    assert len(enqueued_jobs("again")) == 1


def test_a_clock_is_one_of_ours(service, registry):
    """A moment is no clock, and is refused with what it takes."""
    with pytest.raises(TypeError, match=r"clock must be a Clock of jobqueue.testing, or None, not datetime.datetime"):
        drain(service=service, registry=registry, clock=START)


def test_ticks_are_bounded_too(service, registry, clock):
    """A schedule of jobs that nobody runs here does not keep a drain going for ever."""
    registry.register("t", lambda ctx, job: None)
    service.add_schedule("s", "elsewhere", every=timedelta(seconds=1))
    clock.advance(minutes=2)
    with pytest.raises(DrainError, match="0 runs and 11 ticks"):
        drain(registry=registry, max_runs=10)
    assert len(drain(registry=registry, types="t")) == 0


def test_exactly_as_many_runs_as_there_may_be(service, registry, ran):
    """The last run that is allowed raises nothing, when nothing is due after it."""
    for number in range(3):
        service.enqueue("t", number)
    assert len(drain(registry=registry, max_runs=3)) == 3


def test_only_some_types(service, registry, clock, ran):
    """With types, others stay, and schedules of others do not tick."""
    for name in ("mail:a", "mail:b", "other"):
        service.enqueue(name, 1)
        service.add_schedule(name, name, every=HOUR)
    clock.advance(HOUR)
    drain(registry=registry, types=["mail:*"])
    assert sorted(ran) == [("mail:a", 0), ("mail:a", 1), ("mail:b", 0), ("mail:b", 1)]
    assert_enqueued("other", count=1)


def test_types_without_a_handler_are_refused(service, registry):
    """A type that is misspelt runs nothing: that is said."""
    registry.register("mail", lambda ctx, job: None)
    with pytest.raises(HandlerNotFoundError, match="'mailx'"):
        drain(registry=registry, types="mailx")


def test_jobs_without_a_handler_stay(service, registry):
    """They are not run, and no error: another process may serve them."""
    service.enqueue("elsewhere", 1)
    assert str(drain(registry=registry)) == "nothing"
    assert_enqueued("elsewhere")


def test_what_is_paused_stays(service, registry, clock, ran):
    """Nothing of a paused type is run, until its pause ends."""
    service.enqueue("t", 1)
    jobqueue.pause("t", until=START + HOUR)
    assert drain(registry=registry).types == []
    clock.advance(HOUR)
    assert drain(registry=registry).types == ["t"]


def test_bundles_complete(service, registry, ran):
    """The job that a bundle adds when it has stopped is run in the same drain."""
    bundle = JobBundle.new("b", [JobDesc(1, type="m"), JobDesc(2, type="m")], on_stopped=JobDesc(3, type="end"))
    service.add_bundle(bundle)
    assert drain(registry=registry).types == ["m", "m", "end"]
    assert service.get_job_bundle(bundle.id).stopped_at is not None


def test_middleware_and_observers_see_the_runs(service, registry, ran):
    """A run passes through middleware, and observers are told of it, as in a worker pool."""
    seen = []
    service.listeners.observers.add(lambda event: seen.append(type(event)), JobStarted, RunEnded)
    service.enqueue("t", 1)
    drain(registry=registry, middleware=[lambda ctx, run: (seen.append("in"), run())[1]])
    assert seen == [JobStarted, "in", RunEnded]


def test_a_job_that_deletes_itself(service, registry):
    """Its claim is lost: that is no failure, and nothing is saved."""
    registry.register("t", lambda ctx, job: service.delete_job(job.id))
    service.enqueue("t", 1)
    [run] = drain(registry=registry)
    assert run.kind is None
    assert service.get_status().is_zero


def test_the_real_time_counts_without_a_clock(service, registry, ran):
    """Without a clock, what is due now is run, and what is due later is not."""
    service.enqueue("now", 1)
    service.enqueue("later", 1, delay=HOUR)
    assert drain(registry=registry).types == ["now"]


def test_a_clock_that_is_not_in_force_catches_up(service, registry, ran):
    """What was enqueued after the clock was made, and by the real time, is due all the same."""
    clock = Clock()
    service.enqueue("now", 1)
    service.enqueue("later", 1, delay=HOUR)
    assert drain(registry=registry, clock=clock).types == ["now"]
    clock.advance(hours=2)
    assert drain(registry=registry, clock=clock).types == ["later"]


def test_a_queue_in_memory_joins_nothing(service, registry):
    """It has no transactions, and says so."""
    with pytest.raises(TypeError, match="memory:// cannot join"):
        drain(object(), registry=registry)


def test_atomic_handlers_fail_in_memory(service, registry):
    """An atomic handler is not run without a transaction; the error says why."""
    registry.handler("t", atomic=True)(lambda: None)
    service.enqueue("t", {})
    with pytest.raises(JobQueueError, match="atomic handlers"):
        drain(registry=registry)
