"""Worker threads on PostgreSQL: what becomes of jobs, how soon they start, what that costs."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

import attrs
import pytest

import jobqueue
import jobqueue_pg
from jobqueue import (
    Discard,
    Exponential,
    Fixed,
    Job,
    JobContext,
    JobQueueError,
    Never,
    NotInitializedError,
    Registry,
    RegistryFrozenError,
    Snooze,
    State,
    WorkerPool,
    current_job,
)
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

NOW = timedelta(0)
PATIENCE = 10


@attrs.frozen
class Email:
    to: str
    urgent: bool = False


class OutOfLuckError(Exception):
    error_data: ClassVar = {"luck": 0}


class Stop(BaseException):
    """What no except Exception catches."""


@pytest.fixture
def service(workers):
    """A service whose workers neither listen nor poll: they know what is there at their start, and what they did."""
    return workers.service(poll_only=True)


@pytest.fixture
def hearing(workers):
    """A service whose workers listen, but do not poll."""
    return workers.service()


def returning(result):
    return lambda _: result


def run_to_end(workers, service, registry, *jobs, threads=2):
    """Work *jobs* off, and return them as they then are."""
    workers.start_on(service, registry, threads)
    return [wait_for_end(service, job) for job in jobs]


# --- the life of a pool


def test_a_pool_needs_a_thread(service, registry):
    """Less than one thread is refused, before anything happens."""
    for threads in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            WorkerPool(service, registry, threads=threads)


def test_a_pool_runs_in_a_block(hearing, registry):
    """As a context manager a pool starts at the beginning of the block, and has finished at its end."""
    ran = threading.Event()
    registry.register_func_for_job_type("t", lambda _: ran.set())
    with WorkerPool(hearing, registry, threads=1) as pool:
        assert pool.is_running
        job = hearing.enqueue("t", 1)
        assert ran.wait(PATIENCE)
    assert not pool.is_running
    assert hearing.get_job(job.id).succeeded


def test_a_pool_starts_once(workers, service, registry):
    """Neither while it runs nor afterwards can a pool be started again."""
    pool = workers.start_on(service, registry)
    with pytest.raises(RuntimeError, match="only once"):
        pool.start()
    assert pool.finish(PATIENCE)
    with pytest.raises(RuntimeError, match="only once"):
        pool.start()


def test_a_closed_service_has_no_workers(service, registry):
    """A pool on a closed service says so, and leaves the registry as it was."""
    service.close()
    with pytest.raises(jobqueue.ClosedError):
        WorkerPool(service, registry).start()
    registry.register_func_for_job_type("t", lambda _: None)


def test_two_pools_share_a_service(workers, hearing, registry):
    """Pools with handlers of their own work side by side on one service; each takes what it can handle."""
    other = Registry()
    names = Counter()
    registry.register_func_for_job_type("a", lambda _: names.update("a"))
    other.register_func_for_job_type("b", lambda _: names.update("b"))
    first, second = workers.start_on(hearing, registry), workers.start_on(hearing, other)
    jobs = [hearing.enqueue(kind, 1) for kind in "abab"]
    assert all(wait_for_end(hearing, job).succeeded for job in jobs)
    assert names == {"a": 2, "b": 2}
    assert first.finish(PATIENCE)
    assert wait_for_end(hearing, hearing.enqueue("b", 1)).succeeded
    assert second.finish(PATIENCE)


def test_handlers_cannot_come_while_a_pool_runs(workers, service, registry):
    """The registry is frozen as long as one of its pools runs."""
    registry.register_func_for_job_type("a", lambda _: None)
    first, second = workers.start_on(service, registry), workers.start_on(service, registry)
    first.finish(PATIENCE)
    with pytest.raises(RegistryFrozenError):
        registry.register_func_for_job_type("b", lambda _: None)
    with pytest.raises(RegistryFrozenError):
        registry.unregister("a")
    second.finish(PATIENCE)
    registry.register_func_for_job_type("b", lambda _: None)
    registry.unregister("a", "b")


def test_the_threads_of_the_process(hearing):
    """start_threads, stop_threads and finish_threads work on the current service and the default registry."""
    job_type = "test_the_threads_of_the_process"
    jobqueue.register_func_for_job_type(job_type, lambda number: number + 1)
    try:
        with jobqueue.use_service(hearing):
            pool = jobqueue.start_threads(2)
            with pytest.raises(JobQueueError, match="running already"):
                jobqueue.start_threads(2)
            job = jobqueue.enqueue(job_type, 1)
            assert wait_for_end(hearing, job).result == 2
            jobqueue.stop_threads()
            jobqueue.stop_threads()
            assert not pool.is_running
            again = jobqueue.start_threads(1)
            assert wait_for_end(hearing, jobqueue.enqueue(job_type, 2)).result == 3
            assert jobqueue.finish_threads(timeout=timedelta(seconds=PATIENCE))
            assert jobqueue.finish_threads()
            assert not again.is_running
    finally:
        jobqueue.finish_threads(PATIENCE)
        jobqueue.unregister(job_type)


def test_start_threads_checks_first(service):
    """A wrong number, and a missing service, are told of before a thread is started."""
    with pytest.raises(ValueError, match="at least 1"), jobqueue.use_service(service):
        jobqueue.start_threads(0)
    with pytest.raises(NotInitializedError):
        jobqueue.start_threads(1)
    jobqueue.stop_threads()
    assert jobqueue.finish_threads(0)


# --- what becomes of jobs


def test_handlers_of_every_shape(workers, service, registry):
    """Each shape of handler gets what its job holds, and its result is stored."""

    @registry.handler("whole")
    def whole(email: Email) -> str:
        return email.to

    @registry.handler("context and whole")
    def context_and_whole(ctx: JobContext, email: Email) -> dict[str, object]:
        assert current_job() is ctx.job
        return {"to": email.to, "type": ctx.job.type}

    @registry.handler("keys")
    def keys(to: str, urgent: bool = False) -> list[object]:
        return [to, urgent]

    @registry.handler("keyword only")
    def keyword_only(*, to: str) -> str:
        return to

    @registry.handler("nothing")
    def nothing() -> None:
        assert current_job() is not None

    registry.register("job itself", lambda ctx, job: job.payload["to"])
    types = ["whole", "context and whole", "keys", "keyword only", "nothing", "job itself"]
    payloads = {"keyword only": {"to": "you"}, "nothing": {}}
    jobs = [service.enqueue(kind, payloads.get(kind, Email("you"))) for kind in types]
    ended = run_to_end(workers, service, registry, *jobs)
    assert [job.error_msg for job in ended] == [None] * len(ended)
    assert [job.result for job in ended] == [
        "you",
        {"to": "you", "type": "context and whole"},
        ["you", False],
        "you",
        None,
        "you",
    ]


def test_a_job_that_succeeds(workers, service, registry):
    """Success leaves a result, one run, no error, and who claimed the job."""
    registry.register_func_for_job_type("t", lambda number: {"double": 2 * number})
    [job] = run_to_end(workers, service, registry, service.enqueue("t", 21))
    assert (job.state, job.result, job.run_count, job.current_retry_count) == (State.SUCCEEDED, {"double": 42}, 1, 0)
    assert (job.error_msg, job.attempt_errors, job.worker_alive_at) == (None, (), None)
    assert ":jobqueue-worker-" in (job.claimed_by or "")


def test_a_job_that_fails(workers, service, registry):
    """A last failure leaves its message, its data and traceback, and an attempt."""

    @registry.handler("t")
    def fail(_: int) -> None:
        raise OutOfLuckError("no luck today")

    [job] = run_to_end(workers, service, registry, service.enqueue("t", 1))
    assert (job.state, job.error_msg, job.result, job.run_count) == (State.FAILED, "no luck today", None, 1)
    assert job.error_data["type"].endswith("OutOfLuckError")
    assert "no luck today" in job.error_data["traceback"]
    assert job.error_data["error_data"] == {"luck": 0}
    [attempt] = job.attempt_errors
    assert (attempt.run, attempt.error_msg) == (1, "no luck today")
    assert abs(attempt.at - job.stopped_at) < timedelta(seconds=PATIENCE)


@pytest.mark.parametrize(
    "policy", [Fixed(NOW), Exponential(base=timedelta(milliseconds=1)), None], ids=["fixed", "exponential", "default"]
)
def test_a_failed_job_is_run_again(workers, service, registry, policy):
    """A policy has a job run again as often as it has retries; the errors of all runs are kept."""

    @registry.handler("t", retry=policy, max_retry_count=2)
    def fail_twice(ctx: JobContext, _: int) -> str:
        if ctx.job.current_retry_count < (1 if policy is None else 2):
            raise OutOfLuckError(f"attempt {ctx.job.run_count + 1}")
        return "third time lucky"

    job = service.enqueue("t", 1, max_retry_count=2)
    [ended] = run_to_end(workers, service, registry, job)
    runs = 2 if policy is None else 3
    assert (ended.result, ended.run_count, ended.current_retry_count) == ("third time lucky", runs, runs - 1)
    assert [(error.run, error.error_msg) for error in ended.attempt_errors] == [
        (run, f"attempt {run}") for run in range(1, runs)
    ]
    assert ended.error_msg is None


def test_never_means_never(workers, service, registry):
    """With Never a job fails at once, whatever retries it has; its count shows that it is over."""
    registry.handler("t", retry=Never())(lambda _: 1 / 0)
    [job] = run_to_end(workers, service, registry, service.enqueue("t", 1, max_retry_count=5))
    assert (job.state, job.run_count, job.current_retry_count) == (State.FAILED, 1, 5)
    assert job.is_finished


def test_a_schedule_says_when_to_retry(workers, service, registry):
    """A schedule function sees the job with its error; its moment is kept, and the job starts soon after it."""
    seen: list[str | None] = []
    moments: list[datetime] = []

    @registry.handler("t")
    def fail_once(ctx: JobContext, _: int) -> float:
        if ctx.job.current_retry_count == 0:
            raise OutOfLuckError("first")
        return (datetime.now(UTC) - moments[0]).total_seconds()

    def schedule(_: JobContext, job: Job) -> datetime:
        seen.append(job.error_msg)
        moments.append(datetime.now(UTC) + timedelta(seconds=0.5))
        return moments[0]

    registry.register_schedule_retry("t", schedule)
    [job] = run_to_end(workers, service, registry, service.enqueue("t", 1, max_retry_count=1))
    assert seen == ["first"]
    assert 0 <= job.result < PATIENCE


@pytest.mark.parametrize(
    ("moment", "words"),
    [(lambda: 1 / 0, "division by zero"), (lambda: "soon", "aware datetime"), (datetime.now, "aware datetime")],
)
def test_a_schedule_that_fails_ends_the_job(workers, service, registry, moment, words):
    """A job whose retry cannot be scheduled fails, and says both what happened and why there is no retry."""
    registry.register_func_for_job_type("t", lambda _: int("x"))
    registry.register_schedule_retry("t", lambda ctx, job: moment())
    [job] = run_to_end(workers, service, registry, service.enqueue("t", 1, max_retry_count=3))
    assert job.state is State.FAILED
    assert "invalid literal" in job.error_msg
    assert words in job.error_msg


def test_a_snoozed_job_comes_back(workers, service, registry):
    """Snooze has a job run again after its delay, at the expense of no retry."""
    naps = iter([timedelta(seconds=0.3), timedelta(0)])
    registry.register_func_for_job_type("t", lambda _: Snooze(nap) if (nap := next(naps, None)) is not None else "up")
    [job] = run_to_end(workers, service, registry, service.enqueue("t", 1))
    assert (job.result, job.run_count, job.current_retry_count, job.attempt_errors) == ("up", 3, 0, ())


def test_a_discarded_job_is_cancelled(workers, service, registry):
    """Discard ends a job for good, with its reason, retries or not."""
    registry.register_func_for_job_type("t", lambda _: Discard("nobody cares"))
    [job] = run_to_end(workers, service, registry, service.enqueue("t", 1, max_retry_count=3))
    assert (job.state, job.error_msg, job.run_count) == (State.CANCELLED, "nobody cares", 1)
    assert job.is_finished


def test_a_result_that_is_no_json_fails_the_job(workers, service, registry):
    """A result that cannot be stored is a failure that says so."""
    registry.register_func_for_job_type("t", lambda _: {"thing": object()})
    [job] = run_to_end(workers, service, registry, service.enqueue("t", 1))
    assert job.state is State.FAILED
    assert "cannot be stored as JSON" in job.error_msg


def test_a_payload_that_does_not_fit_fails_the_job(workers, service, registry):
    """A payload that its handler cannot take is a failure of that job alone."""
    registry.handler("t")(lambda email: email)

    @registry.handler("email")
    def send(email: Email) -> str:
        return email.to

    bad, good = service.enqueue("email", {"too": 1}), service.enqueue("email", {"to": "you"})
    bad, good = run_to_end(workers, service, registry, bad, good)
    assert (bad.state, good.result) == (State.FAILED, "you")
    assert "Email" in bad.error_msg


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), Stop("stop")])
def test_no_error_ends_a_thread(workers, service, registry, error):
    """Whatever a handler raises fails its job, and its thread takes the next one."""

    @registry.handler("t")
    def fail(bad: bool) -> str:
        if bad:
            raise error
        return "fine"

    bad, good = service.enqueue("t", True), service.enqueue("t", False)
    bad, good = run_to_end(workers, service, registry, bad, good, threads=1)
    assert (bad.state, good.result) == (State.FAILED, "fine")
    assert bad.error_data["type"].endswith(type(error).__qualname__)


def test_an_error_that_cannot_be_told_ends_no_thread(workers, service, registry):
    """Not even an error whose message raises SystemExit can end a thread, or leave its job running."""

    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    @registry.handler("t")
    def fail(bad: bool) -> str:
        if bad:
            raise UnspeakableError
        return "fine"

    bad, good = service.enqueue("t", True), service.enqueue("t", False)
    bad, good = run_to_end(workers, service, registry, bad, good, threads=1)
    assert (bad.state, good.result) == (State.FAILED, "fine")


def test_a_handler_finds_out_about_its_timeout(workers, service, registry):
    """ctx.check() raises when the handler's own timeout, else the service's, is reached; ctx.deadline says when."""
    deadlines = {}

    def work(ctx: JobContext, _: int) -> None:
        deadlines[ctx.job.type] = ctx.deadline
        wait_until(ctx.check)

    registry.handler("short", timeout=timedelta(milliseconds=50))(work)
    registry.handler("usual")(work)

    @registry.handler("endless", timeout=None)
    def endless(ctx: JobContext, _: int) -> None:
        deadlines[ctx.job.type] = ctx.deadline
        ctx.check()

    service = workers.service(job_timeout=timedelta(milliseconds=100))
    jobs = [service.enqueue(kind, 1) for kind in ("short", "usual", "endless")]
    short, usual, endless_job = run_to_end(workers, service, registry, *jobs)
    for job in (short, usual):
        assert job.error_data["type"].endswith("JobTimeoutError")
        assert abs(deadlines[job.type] - job.stopped_at) < timedelta(seconds=PATIENCE)
    assert endless_job.succeeded
    assert deadlines["endless"] is None


def test_handlers_add_jobs(workers, hearing, registry, db):
    """A handler adds jobs through the current hearing, which is that of its pool."""
    job_type = "test_handlers_add_jobs"

    @registry.handler("parent")
    def parent(n: int) -> list[str]:
        return [str(jobqueue.enqueue("child", number).id) for number in range(n)]

    registry.register_func_for_job_type("child", lambda number: number)
    with jobqueue.use_service(hearing):
        workers.start_on(hearing, registry, 2)
        job = jobqueue.enqueue("parent", 5, origin=job_type)
    children = [UUID(child) for child in wait_for_end(hearing, job).result]
    assert [wait_for_end(hearing, child).result for child in children] == [0, 1, 2, 3, 4]


def test_context_variables_do_not_pass_from_job_to_job(workers, service, registry):
    """What one run leaves in a context variable is not there for the next run of its thread."""
    from contextvars import ContextVar

    variable: ContextVar[int] = ContextVar("variable", default=0)

    @registry.handler("t")
    def work(number: int) -> int:
        seen = variable.get()
        variable.set(number)
        return seen

    jobs = [service.enqueue("t", number) for number in (1, 2, 3)]
    assert [job.result for job in run_to_end(workers, service, registry, *jobs, threads=1)] == [0, 0, 0]


def test_a_bundle_is_worked_off(workers, hearing, registry):
    """A bundle's counter follows its members, and its job that is to run at the end runs once, after all."""
    order: list[object] = []
    registry.register_func_for_job_type("member", order.append)
    registry.register_func_for_job_type("end", lambda _: order.append("end"))
    bundle = jobqueue.JobBundle.new(
        "b", [jobqueue.JobDesc(n, type="member") for n in range(20)], on_stopped=jobqueue.JobDesc({}, type="end")
    )
    workers.start_on(hearing, registry, 4)
    hearing.add_bundle(bundle)
    wait_until(lambda: "end" in order)
    assert sorted(order[:-1]) == list(range(20))
    assert order[-1] == "end"
    ended = hearing.get_job_bundle(bundle.id)
    assert (ended.num_jobs_stopped, ended.stopped) == (20, True)


def test_what_a_handler_enqueues_goes_to_its_own_service(workers, service, registry, database):
    """A handler that names no service enqueues on the one that runs it, whatever the default is."""
    jobqueue_pg.migrate(database)
    with jobqueue_pg.connect(database) as other, jobqueue.use_service(other):

        @registry.handler("parent")
        def parent(number: int) -> str:
            return str(jobqueue.enqueue("child", number).id)

        job = run_to_end(workers, service, registry, service.enqueue("parent", 1))[0]
        assert service.get_job(UUID(job.result)).type == "child"
        assert other.get_status().is_zero
