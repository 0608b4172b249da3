"""The modes for tests of applications: jobs that run at once, jobs and bundles that are ignored."""

import threading
from datetime import UTC, datetime, timedelta

import attrs
import pytest

import jobqueue
from jobqueue import (
    ClosedError,
    Discard,
    HandlerNotFoundError,
    Job,
    JobBundle,
    JobContext,
    JobDesc,
    JobTimeoutError,
    PayloadError,
    Registry,
    Snooze,
    State,
    context,
)
from jobqueue.registry import default_registry
from jobqueue.testing import ignore_job_bundles, ignore_jobs, synchronous_jobs
from tests.fixtures.waiting import wait_until

HOUR = timedelta(hours=1)
PATIENCE = 10


class NoLuckError(Exception):
    pass


@attrs.frozen
class Email:
    to: str


@pytest.fixture(autouse=True)
def no_default_service(monkeypatch):
    monkeypatch.setattr(context, "_default", None)


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def ran(registry):
    """The payloads with which jobs of types ``t``, ``u`` and ``after`` were run."""
    payloads: list[object] = []
    for type in ("t", "u", "after"):
        registry.register_func_for_job_type(type, payloads.append)
    return payloads


@pytest.fixture
def service():
    """A service on a queue in memory, which is the current one."""
    with jobqueue.connect("memory://", origin="tests") as service, jobqueue.use_service(service):
        yield service


def make_bundle(*payloads, type="b", member_type="t", **values):
    return JobBundle.new(type, [JobDesc(payload, type=member_type) for payload in payloads], **values)


def stored(service):
    status = service.get_status()
    return status.num_jobs, status.num_job_bundles


# --- jobs that run at once


def test_a_job_runs_at_once(service, registry):
    """The handler has run when the job comes back, with its result, as if it had been stored; nothing is."""
    registry.register("t", lambda ctx, job: {"thread": threading.current_thread().name, "origin": job.origin})
    with synchronous_jobs(registry):
        job = jobqueue.enqueue("t", 1)
    assert job.result == {"thread": threading.current_thread().name, "origin": "tests"}
    assert (job.state, job.run_count, job.error_msg) == (State.SUCCEEDED, 1, None)
    assert job.started_at <= job.stopped_at <= datetime.now(UTC)
    assert stored(service) == (0, 0)


@pytest.mark.parametrize(
    "add",
    [
        lambda: jobqueue.add_job(Job.new("t", 1)),
        lambda: jobqueue.add_job(Job.new("t", 1), connection=object()),
        lambda: jobqueue.add_job(Job.new("t", 1, start_at=datetime.now(UTC) + HOUR)),
        lambda: jobqueue.enqueue("t", 1, delay=HOUR),
        lambda: jobqueue.enqueue("t", 1, max_retry_count=3, priority=5),
        lambda: jobqueue.add_jobs([Job.new("t", 1)])[0],
        lambda: jobqueue.add_bundle(make_bundle(1)).jobs[0],
    ],
    ids=["job", "connection", "start_at", "delay", "retries", "jobs", "bundle"],
)
def test_however_a_job_is_added(service, registry, ran, add):
    """In whichever way a job is added, and whenever it is due: it runs now, and once."""
    with synchronous_jobs(registry):
        assert add().state is State.SUCCEEDED
    assert ran == [1]
    assert stored(service) == (0, 0)


def test_the_default_registry(service):
    """Where no registry is named, handlers are found where ``jobqueue.handler`` puts them."""
    name = "test_the_default_registry"
    handler = default_registry.handler(name)(lambda number: number + 1)
    try:
        with synchronous_jobs():
            assert handler.enqueue(1).result == 2
    finally:
        jobqueue.unregister(name)


def test_a_payload_is_structured(service, registry):
    """A handler gets what it would get from a worker: its own class, after a round trip through JSON."""
    registry.handler("t")(take_email)
    with synchronous_jobs(registry):
        assert jobqueue.enqueue("t", Email("you")).result == "Email to you"
        with pytest.raises(PayloadError, match="Email"):
            jobqueue.enqueue("t", {"to": 1, "cc": 2})


def take_email(email: Email) -> str:
    return f"{type(email).__name__} to {email.to}"


@pytest.mark.parametrize("error", [NoLuckError("today"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_reaches_whoever_adds_the_job(service, registry, error):
    """What the handler raises comes out as it is, after one run, whatever retries and policies there are."""
    runs: list[int] = []

    @registry.handler("t", retry=jobqueue.Fixed(timedelta(0)))
    def fail(number: int) -> None:
        runs.append(number)
        raise error

    registry.register_schedule_retry("t", lambda ctx, job: pytest.fail("was asked for a retry"))
    with synchronous_jobs(registry), pytest.raises(type(error)) as caught:
        jobqueue.enqueue("t", 1, max_retry_count=3)
    assert caught.value is error
    assert runs == [1]
    assert stored(service) == (0, 0)


def test_what_cannot_run_or_be_stored(service, registry):
    """A type without a handler, and a result that is no JSON, are errors as well."""
    registry.register_func_for_job_type("t", lambda _: object())
    with synchronous_jobs(registry):
        with pytest.raises(HandlerNotFoundError, match="'nobody'"):
            jobqueue.enqueue("nobody", 1)
        with pytest.raises(PayloadError, match="cannot be stored as JSON"):
            jobqueue.enqueue("t", 1)


def test_a_job_that_is_snoozed_or_discarded(service, registry):
    """Snooze leaves a job that has run and not stopped; Discard one that is cancelled, with its reason."""
    registry.register_func_for_job_type("snooze", lambda _: Snooze(HOUR))
    registry.register_func_for_job_type("discard", lambda _: Discard("nobody cares"))
    registry.register_func_for_job_type("discard for no reason", lambda _: Discard(""))
    with synchronous_jobs(registry):
        assert jobqueue.enqueue("snooze", 1).state is State.RETRYING
        job = jobqueue.enqueue("discard", 1, max_retry_count=2)
        assert (job.state, job.error_msg, job.is_finished) == (State.CANCELLED, "nobody cares", True)
        assert jobqueue.enqueue("discard for no reason", 1).error_msg == "discarded by its handler"


def test_a_handler_has_its_context(service, registry):
    """Its job is the current one, its service the current service, its own timeout its deadline; it is not lost."""

    @registry.handler("t", timeout=timedelta(0, 0, 1))
    def work(ctx: JobContext, _: int) -> None:
        assert jobqueue.current_job() is ctx.job
        assert jobqueue.current_service() is service
        assert not ctx.is_cancelled
        ctx.set_progress(0.5)
        wait_until(lambda: datetime.now(UTC) > ctx.deadline)
        ctx.check()

    with synchronous_jobs(registry), pytest.raises(JobTimeoutError):
        jobqueue.enqueue("t", 1)
    assert jobqueue.current_job() is None


def test_what_handlers_enqueue_runs_at_once_too(service, registry):
    """Follow-ups run within the run that adds them, each with a context of its own."""
    order: list[object] = []

    @registry.handler("t")
    def count_down(ctx: JobContext, number: int) -> int:
        order.append(number)
        below = jobqueue.enqueue("t", number - 1).result if number else 0
        assert jobqueue.current_job() is ctx.job
        return below + number

    with synchronous_jobs(registry):
        assert jobqueue.enqueue("t", 3).result == 6
    assert order == [3, 2, 1, 0]


def test_a_closed_service(registry, ran):
    """A service that was closed runs nothing."""
    service = jobqueue.connect("memory://")
    service.close()
    with jobqueue.use_service(service), synchronous_jobs(registry), pytest.raises(ClosedError):
        jobqueue.enqueue("t", 1)
    assert ran == []


# --- bundles that run at once


class Hearer:
    """Hears of bundles at both levels."""

    def __init__(self, service):
        self.heard: list[object] = []
        service.add_listener(self)
        service.add_job_bundle_stopped_listener(lambda bundle: self.heard.append(("bundle", bundle)))
        service.set_job_bundle_of_type_stopped_listener("b", lambda bundle: self.heard.append(("type", bundle)))

    def on_job_stopped(self, id, type, origin, will_retry):
        self.heard.append(("job", id))

    def on_job_bundle_stopped(self, id, type, origin):
        self.heard.append(("event", (id, type, origin)))


def test_a_bundle_runs_at_once(service, registry):
    """Members run in order, then the job that the bundle adds, which sees them; listeners hear last, at every level."""
    hearer = Hearer(service)
    seen: list[object] = []

    @registry.handler("t")
    def member(ctx: JobContext, number: int) -> int:
        seen.append((number, ctx.bundle().num_jobs_stopped, ctx.bundle().stopped_at))
        return 10 * number

    @registry.handler("after")
    def after(ctx: JobContext, payload: str) -> None:
        bundle = ctx.bundle()
        seen.append((payload, [job.result for job in bundle.jobs], bundle.stopped_at is not None, ctx.job.origin))
        assert not hearer.heard

    with synchronous_jobs(registry):
        bundle = jobqueue.add_bundle(make_bundle(1, 2, 3, on_stopped=JobDesc("done", type="after", max_retry_count=1)))
    assert seen == [(1, 0, None), (2, 1, None), (3, 2, None), ("done", [10, 20, 30], True, "tests")]
    assert (bundle.stopped, bundle.num_jobs_stopped, bundle.has_error) == (True, 3, False)
    assert hearer.heard == [("event", (bundle.id, "b", "tests")), ("bundle", bundle), ("type", bundle)]
    assert [job.result for job in hearer.heard[1][1].jobs] == [10, 20, 30]
    assert stored(service) == (0, 0)


def test_the_first_error_ends_a_bundle(service, registry):
    """The members after one that fails do not run, the bundle does not complete, and nobody hears of it."""
    hearer = Hearer(service)
    runs: list[int] = []

    @registry.handler("t")
    def fail_at_two(number: int) -> None:
        runs.append(number)
        if number == 2:
            raise NoLuckError

    registry.register_func_for_job_type("after", lambda _: runs.append(-1))
    with synchronous_jobs(registry), pytest.raises(NoLuckError):
        jobqueue.add_bundle(make_bundle(1, 2, 3, on_stopped=JobDesc(1, type="after")))
    assert runs == [1, 2]
    assert hearer.heard == []


@pytest.mark.parametrize(("steering", "stops"), [(Snooze(HOUR), False), (Discard("no"), True)])
def test_a_bundle_with_a_member_that_is_steered(service, registry, steering, stops):
    """A discarded member has stopped, with an error; a snoozed one has not, and so has its bundle."""
    hearer = Hearer(service)
    registry.register_func_for_job_type("t", lambda number: steering if number == 1 else None)
    runs: list[object] = []
    registry.register_func_for_job_type("after", runs.append)
    with synchronous_jobs(registry):
        bundle = jobqueue.add_bundle(make_bundle(1, 2, on_stopped=JobDesc("done", type="after")))
    assert (bundle.stopped, bundle.stopped_at is not None, bundle.has_error) == (stops, stops, stops)
    assert runs == (["done"] if stops else [])
    assert bool(hearer.heard) == stops


# --- what is ignored


@pytest.mark.parametrize(
    ("arguments", "ignored"),
    [
        ({}, ["t 1", "t 2", "u 1", "u 2"]),
        ({"type": "t"}, ["t 1", "t 2"]),
        ({"predicate": lambda job: job.payload == 1}, ["t 1", "u 1"]),
        ({"type": "t", "predicate": lambda job: job.payload == 1}, ["t 1"]),
        ({"type": "x"}, []),
    ],
    ids=["all", "type", "predicate", "both", "none"],
)
@pytest.mark.parametrize("together", [False, True])
def test_ignored_jobs(service, arguments, ignored, together):
    """Jobs of a type, that a predicate is true for, or both, are not stored, but listed; the others are."""
    jobs = [Job.new(type, number) for type in ("t", "u") for number in (1, 2)]
    with ignore_jobs(**arguments) as listed:
        added = jobqueue.add_jobs(jobs) if together else [jobqueue.add_job(job) for job in jobs]
        bundle = jobqueue.add_bundle(make_bundle(1))
    assert added == jobs
    assert {job.origin for job in added} == {"tests"}
    assert [f"{job.type} {job.payload}" for job in listed] == ignored
    kept = {job for job in jobs if job not in listed}
    assert {*service.get_all_jobs_to_do()} == kept | {*bundle.jobs}


@pytest.mark.parametrize(
    ("arguments", "ignored"),
    [
        ({}, ["b 1", "b 2", "c 3"]),
        ({"type": "b"}, ["b 1", "b 2"]),
        ({"predicate": lambda bundle: bundle.num_jobs > 1}, ["b 2", "c 3"]),
        ({"type": "b", "predicate": lambda bundle: bundle.num_jobs > 1}, ["b 2"]),
        ({"type": "x"}, []),
    ],
    ids=["all", "type", "predicate", "both", "none"],
)
def test_ignored_bundles(service, arguments, ignored):
    """Bundles are ignored as jobs are, with all their members; jobs that are in none are stored."""
    bundles = [make_bundle(1), make_bundle(1, 2), make_bundle(1, 2, 3, type="c")]
    with ignore_job_bundles(**arguments) as listed:
        added = [jobqueue.add_bundle(bundle) for bundle in bundles]
        loose = jobqueue.enqueue("t", 1)
    assert added == bundles
    assert [f"{bundle.type} {bundle.num_jobs}" for bundle in listed] == ignored
    members = {job for bundle in bundles if bundle not in listed for job in bundle.jobs}
    assert {*service.get_all_jobs_to_do()} == members | {loose}


def test_a_predicate_that_fails(service):
    """What a predicate raises reaches whoever adds the job, and nothing is stored."""
    with ignore_jobs(predicate=lambda job: 1 / 0) as listed, pytest.raises(ZeroDivisionError):
        jobqueue.enqueue("t", 1)
    assert listed == []
    assert stored(service) == (0, 0)
