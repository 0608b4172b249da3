"""Worker threads on PostgreSQL: what becomes of jobs, how soon they start, what that costs."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

import attrs
import pytest
from psycopg.conninfo import make_conninfo

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
from jobqueue_pg.database import Database
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of, wait_for_end

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
    assert abs(attempt.at - job.stopped_at) < timedelta(seconds=1)


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
    assert 0 <= job.result < 1.5


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
        assert abs(deadlines[job.type] - job.stopped_at) < timedelta(seconds=1)
    assert endless_job.succeeded
    assert deadlines["endless"] is None


# --- which jobs, in which order


def test_prefixes_take_what_has_no_handler_of_its_own(workers, service, registry):
    """An exact type comes before the longest prefix, that before shorter ones; the star takes the rest."""
    for pattern in ("report:daily", "report:*", "report:weekly:*", "*"):
        registry.register_func_for_job_type(pattern, returning(pattern))
    wanted = {
        "report:daily": "report:daily",
        "report:x": "report:*",
        "report:weekly:eu": "report:weekly:*",
        "reports": "*",
        "other": "*",
    }
    jobs = [service.enqueue(kind, 1) for kind in wanted]
    assert [job.result for job in run_to_end(workers, service, registry, *jobs)] == list(wanted.values())


def test_types_of_others_are_left_alone(workers, service, registry):
    """A job that no handler is registered for is not touched."""
    registry.register_func_for_job_type("known", lambda _: None)
    registry.register_func_for_job_type("pre:*", lambda _: None)
    unknown = [service.enqueue(kind, 1) for kind in ("unknown", "know", "known2", "pre", "prefix")]
    run_to_end(workers, service, registry, service.enqueue("known", 1), service.enqueue("pre:x", 1))
    for job in unknown:
        found = service.get_job(job.id)
        assert (found.started, found.run_count, found.claimed_by) == (False, 0, None)


def test_a_pool_without_handlers_waits(workers, service, registry, caplog):
    """Threads without a handler say so, and do nothing."""
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry)
    assert "without any handler" in caplog.text
    assert pool.finish(PATIENCE)
    assert not service.get_job(job.id).started


def test_one_thread_works_in_order(workers, service, registry):
    """Higher priorities come first, then what was due first, then what was added first."""
    order: list[int] = []
    registry.register_func_for_job_type("t", order.append)
    past = datetime.now(UTC) - timedelta(hours=1)
    jobs = [
        service.enqueue("t", 3),
        service.enqueue("t", 4),
        service.enqueue("t", 5, priority=-1),
        service.enqueue("t", 1, priority=7),
        service.enqueue("t", 2, start_at=past),
        service.enqueue("t", 0, priority=8, start_at=past),
    ]
    run_to_end(workers, service, registry, *jobs, threads=1)
    assert order == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_every_job_runs_exactly_once(workers, registry, db, batch_size):
    """Held one by one or in batches, jobs leave the same history: each ran once, every third was retried once."""
    runs: Counter[int] = Counter()
    lock = threading.Lock()

    @registry.handler("t", max_retry_count=1, retry=Fixed(NOW))
    def work(ctx: JobContext, number: int) -> int:
        with lock:
            runs[number] += 1
        if number % 3 == 0 and ctx.job.current_retry_count == 0:
            raise OutOfLuckError
        return number

    service = workers.service(batch_size=batch_size)
    pool = workers.start_on(service, registry, 4)
    service.add_jobs([Job.new("t", number, max_retry_count=1) for number in range(300)])
    left = "select count(*) from worker.job where stopped_at is null"
    wait_until(lambda: fetch_all(db, left) == [0], 30)
    assert pool.finish(PATIENCE)
    assert runs == {number: 2 if number % 3 == 0 else 1 for number in range(300)}
    history = fetch_all(
        db, "select run_count, current_retry_count, rescue_count, count(*) from worker.job group by 1, 2, 3"
    )
    assert sorted(history) == [(1, 0, 0, 200), (2, 1, 0, 100)]
    assert fetch_all(db, "select count(*) from worker.job where result <> payload or error_msg is not null") == [0]
    health = service.health()
    assert (health["lost_claims"], health["refused_outcomes"]) == (0, 0)


# --- how soon, and at what cost


def test_a_delayed_job_starts_in_time(workers, service, registry):
    """A job that the workers knew of starts within 1.5 s of its time, however long the poll interval."""
    registry.register_func_for_job_type("t", lambda _: None)
    job = service.enqueue("t", 1, delay=timedelta(seconds=0.6))
    [ended] = run_to_end(workers, service, registry, job)
    assert timedelta(0) <= ended.started_at - ended.start_at < timedelta(seconds=1.5)


def test_a_delayed_job_starts_in_time_beside_long_ones(workers, hearing, registry):
    """Whoever learns when the next job is due and then runs another tells those who go on waiting."""
    release = threading.Event()
    registry.register_func_for_job_type("t", lambda _: None)
    registry.register_func_for_job_type("long", lambda _: release.wait(PATIENCE))
    workers.start_on(hearing, registry, 3)
    running = hearing.enqueue("long", 1)
    wait_until(lambda: hearing.get_job(running.id).started)
    later = hearing.enqueue("t", 1, delay=timedelta(seconds=0.6))
    hearing.enqueue("long", 1)
    ended = wait_for_end(hearing, later, 5)
    release.set()
    assert ended.started_at - ended.start_at < timedelta(seconds=1.5)


def test_a_delayed_job_that_nobody_knows_of_is_polled_for(workers, registry):
    """A job that was added with a delay while the workers slept starts within the poll interval."""
    service = workers.service(poll_interval=timedelta(seconds=0.5))
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(service, registry)
    job = service.enqueue("t", 1, delay=timedelta(seconds=0.3))
    ended = wait_for_end(service, job)
    assert timedelta(0) <= ended.started_at - ended.start_at < timedelta(seconds=1)


def test_without_a_listener_jobs_are_polled_for(workers, registry):
    """A service that polls only has no listener, and finds jobs within its poll interval."""
    service = workers.service(poll_only=True, poll_interval=timedelta(seconds=0.3))
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(service, registry)
    assert "jobqueue-listener" not in {thread.name for thread in threading.enumerate()}
    for _ in range(3):
        assert wait_for_end(service, service.enqueue("t", 1), 2).succeeded


def test_a_job_wakes_idle_workers(workers, hearing, registry):
    """A job that is added to an idle queue starts at once, although nobody polls."""
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(hearing, registry, 4)
    waits = []
    for _ in range(20):
        ended = wait_for_end(hearing, hearing.enqueue("t", 1))
        waits.append((ended.started_at - ended.created_at).total_seconds())
    assert max(waits) < 1
    assert sorted(waits)[10] < 0.1


def test_a_job_added_in_a_transaction_wakes_at_its_commit(workers, hearing, registry, db):
    """Nothing starts before the commit of the transaction that adds it, and it starts at once after that."""
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(hearing, registry)
    with db.transaction():
        job = hearing.enqueue("t", 1, connection=db)
        with pytest.raises(jobqueue.JobNotFoundError):
            hearing.get_job(job.id)
    began = time.monotonic()
    wait_for_end(hearing, job, 2)
    assert time.monotonic() - began < 1


def test_a_burst_wakes_several_threads(workers, hearing, registry):
    """Jobs that come together run together: each of them waits for all others to have started."""
    together = threading.Barrier(6)
    registry.register_func_for_job_type("t", lambda _: together.wait(PATIENCE))
    workers.start_on(hearing, registry, 6)
    jobs = hearing.add_jobs([Job.new("t", number) for number in range(6)])
    assert all(wait_for_end(hearing, job).succeeded for job in jobs)


def test_jobs_one_by_one_wake_several_threads(workers, hearing, registry):
    """The same, when they are added one after the other."""
    together = threading.Barrier(6)
    registry.register_func_for_job_type("t", lambda _: together.wait(PATIENCE))
    workers.start_on(hearing, registry, 6)
    jobs = [hearing.enqueue("t", number) for number in range(6)]
    assert all(wait_for_end(hearing, job).succeeded for job in jobs)


def test_a_reset_job_wakes_workers(workers, hearing, registry):
    """A job that is made available again is run at once."""
    registry.register_func_for_job_type("t", lambda _: None)
    [job] = run_to_end(workers, hearing, registry, hearing.enqueue("t", 1))
    hearing.reset_job(job.id)
    again = wait_for_end(hearing, job, 2)
    assert (again.run_count, again.claim_id != job.claim_id) == (1, True)


def test_idle_threads_cost_next_to_nothing(workers, registry, monkeypatch):
    """Eight threads without work make about one statement per poll interval, and burn no CPU time."""
    made: list[str] = []
    run = Database._run
    monkeypatch.setattr(
        Database, "_run", lambda self, statement, *rest: (made.append(statement), run(self, statement, *rest))[1]
    )
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start(registry, 8, poll_interval=timedelta(seconds=0.5))
    wait_until(lambda: len(made) >= 3)
    made.clear()
    began, cpu = time.monotonic(), time.process_time()
    assert not threading.Event().wait(3)
    seconds, burnt = time.monotonic() - began, time.process_time() - cpu
    # Maintenance makes two statements every four seconds or so.
    assert 4 <= len(made) <= 2 * seconds + 1 + 2
    assert burnt < 0.3 * seconds


def test_connections_do_not_depend_on_threads(workers, registry, db):
    """A pool with 32 busy threads and its listener have at most 4 connections."""
    name = "budget"
    service = workers.service(application_name=name)
    adding = jobqueue_pg.connect(make_conninfo(workers.conninfo, application_name="adding"), origin="tests")
    most, busy, lock = [0], [0], threading.Lock()

    def work(_: int) -> None:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        threading.Event().wait(0.02)
        with lock:
            busy[0] -= 1

    registry.register_func_for_job_type("t", work)
    pool = workers.start_on(service, registry, 32)
    adding.add_jobs([Job.new("t", number) for number in range(600)])
    connections = []

    def done() -> bool:
        connections.append(connections_of(db, name))
        return fetch_all(db, "select count(*) from worker.job where stopped_at is null") == [0]

    wait_until(done, 30)
    assert most[0] >= 24
    assert max(connections) <= 4
    assert pool.finish(PATIENCE)
    adding.close()


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
