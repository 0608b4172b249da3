"""What running handlers tell: their progress, and the errors of which the function for errors hears."""

import threading
from datetime import timedelta
from decimal import Decimal

import pytest

import jobqueue
from jobqueue import Fixed, Job, JobContext, LostClaimError, PayloadError, Registry, State
from jobqueue.registry import default_registry
from jobqueue.testing import synchronous_jobs
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

PATIENCE = 10
NAME = "telling"


class NoLuckError(Exception):
    pass


@pytest.fixture
def service(workers):
    return workers.service(application_name=NAME)


# --- progress


def test_progress_is_seen_while_a_job_runs(workers, service, registry):
    """What a handler says of its progress is there for others at once, the last word counts, and it stays."""
    said, next_word = threading.Semaphore(0), threading.Semaphore(0)

    @registry.handler("t")
    def work(ctx: JobContext, _: int) -> None:
        for word in [(0, ""), (Decimal("0.25"), "begun"), (1, "nearly")]:
            ctx.set_progress(*word)
            said.release()
            next_word.acquire(timeout=PATIENCE)
        raise NoLuckError

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    for fraction, message in [(0, ""), (0.25, "begun"), (1, "nearly")]:
        assert said.acquire(timeout=PATIENCE)
        seen = service.get_job(job.id)
        assert (seen.state, seen.progress) == (State.RUNNING, {"fraction": fraction, "message": message})
        next_word.release()
    assert wait_for_end(service, job).progress == {"fraction": 1, "message": "nearly"}


def run(workers, service, registry, handler):
    """Run a job by *handler* to its end; return what the call within it raised or returned, and the job."""
    met: list[object] = []

    @registry.handler("t")
    def attempt(ctx: JobContext, _: int) -> None:
        try:
            met.append(handler(ctx))
        except Exception as error:  # noqa: BLE001 - whatever it is, is what the test is about
            met.append(error)

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    wait_until(lambda: met)
    return met[0], job


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([-0.01], ValueError),
        ([1.01], ValueError),
        ([float("nan")], ValueError),
        ([float("inf")], ValueError),
        (["half"], TypeError),
        ([None], TypeError),
        ([0.5, "\0"], PayloadError),
    ],
)
def test_progress_that_is_none(workers, service, registry, arguments, error):
    """A fraction is from 0 to 1, and a message is text: anything else is refused, and nothing is shown."""
    met, job = run(workers, service, registry, lambda ctx: ctx.set_progress(*arguments))
    assert isinstance(met, error)
    assert wait_for_end(service, job).progress is None


@pytest.mark.parametrize("take_away", ["cancel_job", "reset_job", "delete_job"])
def test_progress_of_a_lost_claim(workers, registry, take_away):
    """Who has lost the claim cannot show progress, and is told so: there is no need of a beat, or of a listener."""
    service = workers.service(poll_only=True)

    def lose_and_tell(ctx: JobContext) -> bool:
        getattr(service, take_away)(ctx.job.id)
        assert not ctx.is_lost
        with pytest.raises(LostClaimError):
            ctx.set_progress(0.5)
        return ctx.is_lost

    met, job = run(workers, service, registry, lose_and_tell)
    assert met is True
    assert all(each.progress is None for each in service.list_jobs() if each == job)


def test_progress_without_a_database(workers, service, registry, db):
    """A database that does not answer is passed over: the run goes on, and the next word is heard."""

    def cut_and_tell(ctx: JobContext) -> bool:
        ctx.set_progress(0.25)
        for pid in fetch_all(db, "select pid from pg_stat_activity where application_name = %s", NAME):
            db.execute("select pg_terminate_backend(%s)", [pid])
        ctx.set_progress(0.5)
        ctx.set_progress(0.75)
        return True

    met, job = run(workers, service, registry, cut_and_tell)
    assert met is True
    watching = workers.service(poll_only=True)
    assert wait_for_end(watching, job).progress == {"fraction": 0.75, "message": ""}


def test_progress_without_a_claim(service):
    """A handler that is run without a queue shows its progress to nobody, and is checked all the same."""
    registry = Registry()

    @registry.handler("t")
    def work(ctx: JobContext, fraction: float) -> str:
        ctx.set_progress(fraction)
        return "done"

    assert jobqueue.do_job(Job.new("t", 0.5), registry) == "done"
    with synchronous_jobs(registry), jobqueue.use_service(service):
        job = jobqueue.enqueue("t", 0.5)
    assert (job.result, job.progress) == ("done", None)
    with pytest.raises(ValueError, match="0 to 1"):
        jobqueue.do_job(Job.new("t", 2), registry)


# --- the function for errors


class Hearer:
    """Hears errors, with the job that was current then."""

    def __init__(self, service):
        self.heard: list[tuple[str, object]] = []
        service.set_on_error(self.hear)

    def hear(self, error: BaseException) -> None:
        job = jobqueue.current_job()
        self.heard.append((type(error).__name__, None if job is None else job.id))


def test_errors_of_handlers_are_heard(workers, service, registry):
    """Each failed run is told of, whatever it raised, with its job as the current one; success and steering are not."""
    hearer = Hearer(service)
    errors = iter([NoLuckError(), KeyboardInterrupt()])

    @registry.handler("t", retry=Fixed(timedelta(0)))
    def work(_: int) -> object:
        if (error := next(errors, None)) is not None:
            raise error
        return jobqueue.Discard("enough")

    workers.start_on(service, registry, 1)
    job = service.enqueue("t", 1, max_retry_count=5)
    assert wait_for_end(service, job).state is State.CANCELLED
    assert hearer.heard == [("NoLuckError", job.id), ("KeyboardInterrupt", job.id)]


@pytest.mark.parametrize("claimed_by_hand", [False, True])
def test_errors_of_retry_schedules_are_heard(workers, service, registry, claimed_by_hand):
    """A schedule that fails is told of besides the run that failed, with the job as the current one."""
    hearer = Hearer(service)
    registries = default_registry if claimed_by_hand else registry
    registries.register_schedule_retry(NAME, lambda ctx, job: 1 / 0)
    registry.register_func_for_job_type(NAME, lambda _: int("x"))
    job = service.enqueue(NAME, 1, max_retry_count=1)
    try:
        if claimed_by_hand:
            (claim,) = service.claim(NAME)
            claim.fail("no luck")
        else:
            workers.start_on(service, registry, 1)
        assert wait_for_end(service, job).state is State.FAILED
    finally:
        jobqueue.unregister(NAME)
    # Who fails a job by hand knows of the failure.
    of_the_run = [] if claimed_by_hand else [("ValueError", job.id)]
    assert hearer.heard == [*of_the_run, ("ZeroDivisionError", job.id)]


def test_on_error_that_fails(workers, service, registry, caplog):
    """What the function for errors raises is logged, and disturbs nothing."""
    service.set_on_error(lambda error: 1 / 0)
    registry.register_func_for_job_type("t", lambda _: int("x"))
    workers.start_on(service, registry, 1)
    assert "invalid literal" in wait_for_end(service, service.enqueue("t", 1)).error_msg
    assert "ZeroDivisionError" in caplog.text
