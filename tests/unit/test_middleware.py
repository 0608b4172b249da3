"""What stands between those who add jobs and the rows, and between workers and handlers."""

import logging
from datetime import timedelta

import attrs
import pytest

import jobqueue
from jobqueue import (
    AddMiddleware,
    CaptureExceptions,
    ClosedError,
    Job,
    JobBundle,
    JobContext,
    JobDesc,
    JobInterruptedError,
    LogRuns,
    LostClaimError,
    Priority,
    Registry,
    Snooze,
    State,
    WorkerPool,
)
from jobqueue.testing import synchronous_jobs

PATIENCE = 10


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def service():
    """A service on a queue in memory."""
    with jobqueue.connect("memory://", origin="tests") as service:
        yield service


class Mark(AddMiddleware):
    """Writes its name behind what the payload holds already."""

    def __init__(self, name):
        self.name = name

    def add_job(self, service, job, add):
        return add(attrs.evolve(job, payload_json=f'"{job.payload}{self.name}"'))

    def add_bundle(self, service, bundle, add):
        return add(attrs.evolve(bundle, type=f"{bundle.type}{self.name}"))


class Swallow(AddMiddleware):
    """Adds nothing."""

    def add_job(self, service, job, add):
        return job


def payloads(service):
    return sorted(job.payload for job in service.get_all_jobs_to_do())


# --- adding


def test_all_that_is_added_passes_through(service):
    """Every way to add leads through the middleware of the service, the first to be used outermost."""
    service.use(Mark("1"))
    service.use(Mark("2"))
    service.enqueue("t", "a")
    service.add_job(Job.new("t", "b"))
    service.add_jobs([Job.new("t", "c"), Job.new("t", "d")])
    assert payloads(service) == ["a12", "b12", "c12", "d12"]
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc("e", type="t")]))
    assert service.get_job_bundle(bundle.id).type == "b12"


def test_what_is_not_passed_on_is_not_stored(service):
    """Middleware that adds nothing keeps jobs out; the caller is given what it returns."""
    service.use(Swallow())
    assert service.enqueue("t", 1).payload == 1
    assert [job.type for job in service.add_jobs([Job.new("u", 1)])] == ["u"]
    assert service.get_status().num_jobs == 0


def test_modes_for_tests_come_last(service, registry):
    """A test that runs jobs at once runs what the middleware of the service has made of them."""
    service.use(Mark("1"))
    ran = []
    registry.register_func_for_job_type("t", ran.append)
    with jobqueue.use_service(service), synchronous_jobs(registry):
        jobqueue.enqueue("t", "a")
    assert ran == ["a1"]


class Forgetful(AddMiddleware):
    """Adds, and does not say what."""

    def add_job(self, service, job, add):
        add(job)

    def add_bundle(self, service, bundle, add):
        add(bundle)


def test_middleware_that_returns_nothing_is_named(service):
    """Who adds is told which middleware has kept back what it should have returned."""
    service.use(Forgetful())
    with pytest.raises(TypeError, match=r"Forgetful.add_job must return a Job.*None"):
        service.enqueue("t", 1)
    with pytest.raises(TypeError, match=r"Forgetful.add_bundle must return a JobBundle.*None"):
        service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")]))


@pytest.mark.parametrize(
    ("middleware", "why"),
    [
        (5, "needs add_job and add_bundle, which 5 has not: derive it from jobqueue.AddMiddleware"),
        (None, "needs add_job and add_bundle"),
        (lambda service, job, add: add(job), "needs add_job and add_bundle"),
        (AddMiddleware, r"not a class: AddMiddleware\(\)"),
    ],
)
def test_what_cannot_stand_before_the_rows_is_refused(service, middleware, why):
    """Anything but an object with both methods is refused at once, and what is added goes its way."""
    with pytest.raises(TypeError, match=why):
        service.use(middleware)
    assert service.enqueue("t", 1).payload == 1


@pytest.mark.parametrize(
    ("middleware", "why"),
    [
        (5, "which 5 cannot be"),
        (LogRuns, r"not a class: LogRuns\(\)"),
        (lambda ctx: ctx, "does not take: too many positional arguments"),
        (lambda ctx, run, more: run(), "missing a required argument: 'more'"),
    ],
)
def test_what_cannot_stand_before_handlers_is_refused(service, registry, middleware, why):
    """Anything that cannot be called with a context and a run is refused at once, and not when jobs fail of it."""
    with pytest.raises(TypeError, match=why):
        WorkerPool(service, registry).use(middleware)


def test_a_tracker_of_exceptions_can_be_called():
    """What is to capture exceptions is looked at when it is given."""
    with pytest.raises(TypeError, match="must be callable"):
        CaptureExceptions(5)


def test_a_closed_service_uses_nothing(service):
    """As everything else, this is refused after close()."""
    other = jobqueue.connect("memory://")
    other.close()
    with pytest.raises(ClosedError):
        other.use(Mark("1"))


# --- running


def run(service, registry, payload, *middleware, **options):
    """Run a job through a pool with *middleware*; return it as it is then."""
    job = service.enqueue("t", payload, **options)
    pool = WorkerPool(service, registry, threads=1)
    for each in middleware:
        pool.use(each)
    with pool:
        return service.wait_for_job(job.id, PATIENCE)


def noting(name, notes):
    def middleware(context, run):
        notes.append(f"{name} {context.job.type}")
        try:
            return run()
        finally:
            notes.append(name)

    return middleware


def test_runs_pass_through_in_order(service, registry):
    """The first middleware to be used is the outermost, and sees the context of the run."""
    notes = []
    registry.register_func_for_job_type("t", lambda _: notes.append("handler"))
    run(service, registry, 1, noting("a", notes), noting("b", notes))
    assert notes == ["a t", "b t", "handler", "b", "a"]


def test_middleware_changes_the_result(service, registry):
    """What the outermost returns is the result."""
    registry.register_func_for_job_type("t", lambda n: n + 1)
    assert run(service, registry, 1, lambda _, run: run() * 10).result == 20


def test_middleware_may_fail_or_put_off(service, registry):
    """What middleware raises is the run's failure, and it may say what a handler may."""
    registry.register_func_for_job_type("t", lambda n: n)
    refusals = iter([Snooze(timedelta(0)), 5])
    assert run(service, registry, 1, lambda _, __: next(refusals)).result == 5

    def refuse(context, run):
        raise PermissionError("not today")

    failed = run(service, registry, 1, refuse)
    assert (failed.state, failed.error_msg) == (State.FAILED, "not today")


def test_the_current_job_is_known_to_middleware(service, registry):
    """Middleware runs within the run: the current job and service are there."""
    registry.register_func_for_job_type("t", lambda _: None)
    seen = []
    job = run(service, registry, 1, lambda _, run: (seen.append(jobqueue.current_job()), run())[1])
    assert seen == [job]


def test_middleware_comes_before_the_start(service, registry):
    """A pool that was started takes no more middleware."""
    with WorkerPool(service, registry) as pool, pytest.raises(RuntimeError, match="before a worker pool is started"):
        pool.use(LogRuns())


def test_middleware_of_the_threads_of_the_process(service, registry):
    """start_threads() takes middleware, too."""
    notes = []
    jobqueue.register_func_for_job_type("test-middleware", lambda _: None)
    try:
        with jobqueue.use_service(service):
            jobqueue.start_threads(1, middleware=[noting("a", notes)])
            service.wait_for_job(service.enqueue("test-middleware", 1).id, PATIENCE)
            assert jobqueue.finish_threads(PATIENCE)
    finally:
        jobqueue.unregister("test-middleware")
    assert notes == ["a test-middleware", "a"]


# --- ready-made


def test_runs_are_logged(service, registry, caplog):
    """Each run has two records, with the job's id and type, the second with its duration."""
    registry.register_func_for_job_type("t", lambda n: 1 / n)
    with caplog.at_level(logging.INFO, "jobqueue.middleware"):
        good, bad = run(service, registry, 1, LogRuns()), run(service, registry, 0, LogRuns())
    records = [record for record in caplog.records if record.name == "jobqueue.middleware"]
    assert [record.job_id for record in records] == [str(job.id) for job in (good, good, bad, bad)]
    said = [record.getMessage() for record in records]
    assert said[0] == f"run 1 of job {good.id} (t) began"
    assert (" ended after 0." in said[1], " failed after 0." in said[3]) == (True, True)
    assert records[1].seconds >= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logger": "runs"}, r"logger must be a logger, such as logging.getLogger\('runs'\), not 'runs'"),
        ({"level": "DEBUG"}, "level must be a number, such as logging.DEBUG, not 'DEBUG'"),
    ],
)
def test_what_cannot_log_is_refused_before_any_run(options, message):
    """Later it would fail each run."""
    with pytest.raises(TypeError, match=message):
        LogRuns(**options)


def test_exceptions_are_captured(service, registry):
    """Whatever a handler raises is given to the function; the run fails as ever."""
    registry.register_func_for_job_type("t", lambda n: 1 / n)
    captured = []
    failed = run(
        service, registry, 0, CaptureExceptions(lambda error: captured.append((error, jobqueue.current_job())))
    )
    [(error, job)] = captured
    assert (type(error), job, failed.state) == (ZeroDivisionError, failed, State.FAILED)


@pytest.mark.parametrize("kind", [JobInterruptedError, LostClaimError])
def test_interruptions_are_not_captured(kind):
    """What ends a run that was told to stop goes through, and is nobody's failure."""
    captured = []

    def run():
        raise kind("enough")

    with pytest.raises(kind):
        CaptureExceptions(captured.append)(JobContext(Job.new("t", 1)), run)
    assert captured == []


def test_a_tracker_that_fails(service, registry, caplog):
    """What the function itself raises is logged, and does not take the place of the handler's error."""
    registry.register_func_for_job_type("t", lambda n: 1 / n)

    def capture(error):
        raise ConnectionError("no tracker")

    assert run(service, registry, 0, CaptureExceptions(capture)).error_msg == "division by zero"
    assert "could not be captured" in caplog.text


# --- priorities by name


def test_priorities_have_names(service, registry):
    """The names stand for numbers, between which any other number fits."""
    order = []
    registry.register_func_for_job_type("t", order.append)
    for name, priority in {"c": Priority.LOW, "b": Priority.DEFAULT, "a": Priority.HIGH, "ab": 1}.items():
        job = service.enqueue("t", name, priority=priority)
        assert service.get_job(job.id).priority == int(priority)
    with WorkerPool(service, registry, threads=1):
        for job in service.list_jobs():
            service.wait_for_job(job.id, PATIENCE)
    assert order == ["a", "ab", "b", "c"]
