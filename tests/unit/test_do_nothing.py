"""Services that stand in for a real one: DoNothingService and ServiceWithError."""

import inspect
import logging
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import jobqueue
from jobqueue import (
    InvalidJobError,
    Job,
    JobBundle,
    JobBundleNotFoundError,
    JobDesc,
    JobNotFoundError,
    NotInitializedError,
    PayloadError,
    Registry,
    ScheduleNotFoundError,
    Service,
    Status,
    WorkerPool,
    WorkerSettings,
)
from jobqueue.backends.nothing import DoNothingService, ServiceWithError
from jobqueue.events import Connected, Event, JobAvailable
from jobqueue.models import new_id

SOON = timedelta(milliseconds=20)
ALL = {name: member for part in inspect.getmro(Service) for name, member in vars(part).items() if name[0] != "_"}
MEMBERS = sorted(ALL)
PROPERTIES = [name for name in MEMBERS if isinstance(ALL[name], property)]
METHODS = [name for name in MEMBERS if name not in PROPERTIES]


# --- nothing is kept


@pytest.fixture
def nothing() -> Iterator[DoNothingService]:
    with DoNothingService(settings=WorkerSettings(poll_interval=SOON), origin="tests") as service:
        yield service


def add_everything(service: Service, connection: object = None) -> list[Job]:
    """Add jobs in every way; return them as the service did."""
    bundle = JobBundle.new("b", [JobDesc(1, "t")], on_stopped=JobDesc(2, "last"))
    return [
        service.add_job(Job.new("t", 1), connection=connection),
        *service.add_jobs([Job.new("t", 2), Job.new("t", 3)], connection=connection),
        *service.add_bundle(bundle, connection=connection).jobs,
        service.enqueue("t", 4, delay=timedelta(hours=1), connection=connection),
    ]


def test_jobs_are_completed_and_forgotten(nothing):
    """What is added comes back with the service's origin, and is nowhere to be found."""
    added = add_everything(nothing)
    assert {job.origin for job in added} == {"tests"}
    assert nothing.get_status() == Status()
    assert nothing.list_jobs() == nothing.get_all_jobs_to_do() == nothing.get_all_jobs_with_errors() == []
    assert nothing.get_all_jobs_started_before(datetime.now(UTC)) == []
    for job in added:
        with pytest.raises(JobNotFoundError):
            nothing.get_job(job.id)


def test_the_same_job_may_come_twice(nothing):
    """Nothing is there already."""
    job = Job.new("t", 1)
    assert nothing.add_job(job) == nothing.add_job(job)


def test_what_a_real_service_refuses_is_refused(nothing):
    """Jobs, bundles and payloads are checked as ever."""
    with pytest.raises(InvalidJobError):
        nothing.add_job("no job")
    with pytest.raises(InvalidJobError):
        nothing.enqueue("", 1)
    with pytest.raises(PayloadError):
        nothing.enqueue("t", object())
    with pytest.raises(InvalidJobError):
        nothing.add_bundle(JobBundle(id=new_id(), type="b", num_jobs=0))


def test_any_connection_will_do(nothing):
    """A program that adds jobs in its transactions needs no change: nothing is added to them."""
    assert len(add_everything(nothing, connection=object())) == 5


def test_nothing_can_be_managed(nothing):
    """One job or bundle that is asked for by its id is not there; of many, none is."""
    for call in (nothing.reset_job, nothing.delete_job):
        with pytest.raises(JobNotFoundError):
            call(new_id())
    for call in (nothing.get_job_bundle, nothing.delete_job_bundle):
        with pytest.raises(JobBundleNotFoundError):
            call(new_id())
    assert not nothing.replay_job(new_id())
    assert not nothing.cancel_job(new_id())
    assert not nothing.reschedule_job(new_id(), None)
    counts = [
        nothing.reset_jobs([new_id()]),
        nothing.delete_jobs_from_origin("tests"),
        nothing.delete_jobs_of_type("t"),
        nothing.delete_finished_jobs(),
        nothing.delete_job_bundles_from_origin("tests"),
        nothing.delete_job_bundles_of_type("b"),
    ]
    assert counts == [0] * 6
    nothing.delete_all_jobs_and_bundles()


def test_nobody_hears_of_what_is_forgotten(nothing):
    """No event tells of jobs that are not there."""
    heard: list[Event] = []
    nothing.notifier.subscribe(heard.append, JobAvailable)
    add_everything(nothing)
    assert heard == [Connected()]


def test_workers_idle(nothing, caplog):
    """A worker pool polls without finding a job or having a complaint, and ends when it is told to."""
    registry, ran = Registry(), threading.Event()
    registry.register_func_for_job_type("t", lambda _: ran.set())
    with caplog.at_level(logging.WARNING), WorkerPool(nothing, registry, threads=2) as pool:
        add_everything(nothing)
        assert not ran.wait(10 * SOON.total_seconds())
        assert pool.finish(5)
    assert caplog.records == []


def test_functions_of_the_package_do_nothing(nothing):
    """A program in which it is the current service goes on as if its jobs were added."""
    with jobqueue.use_service(nothing):
        assert jobqueue.enqueue("t", 1).origin == "tests"
        assert jobqueue.get_status().is_zero


def test_schedules_are_made_and_forgotten(nothing):
    """One that is added is as it would be, and then not there: it does not tick, nor does what code declares."""
    registry = Registry()
    ran = threading.Event()
    registry.scheduled("declared", every=timedelta(seconds=1))(ran.set)
    added = nothing.add_schedule("s", "t", {"n": 1}, every=timedelta(seconds=1))
    assert (added.payload, added.origin) == ({"n": 1}, "tests")
    assert added.next_tick_at is not None
    with WorkerPool(nothing, registry, threads=1):
        assert not ran.wait(1.2)
    assert (nothing.get_schedules(), nothing.tick_schedules()) == ([], [])
    with pytest.raises(ScheduleNotFoundError):
        nothing.pause_schedule("s")


# --- everything fails


@pytest.mark.parametrize("name", METHODS)
def test_methods_raise_the_error(name):
    """Every method raises the very error, whatever it is called with, and not before it is called."""
    error = NotInitializedError("not yet")
    method = getattr(ServiceWithError(error), name)
    for arguments in ((), (1, 2)):
        with pytest.raises(NotInitializedError) as caught:
            method(*arguments, connection=3)
        assert caught.value is error


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_raise_the_error(name):
    """Every property raises the very error."""
    error = NotInitializedError("not yet")
    with pytest.raises(NotInitializedError) as caught:
        getattr(ServiceWithError(error), name)
    assert caught.value is error


def test_the_service_is_known_whole():
    """Whatever else a service has, its properties and methods are found."""
    assert {"settings", "store", "notifier", "vitals"} <= set(PROPERTIES)
    assert {"add_job", "enqueue", "get_job", "close", "attach"} <= set(METHODS)


@pytest.mark.parametrize("name", ["add_jbo", "_error_of", "__enter__", "mro"])
def test_what_no_service_has_is_missing(name):
    """Anything else is an AttributeError that names it, not the error."""
    with pytest.raises(AttributeError, match=name):
        getattr(ServiceWithError(NotInitializedError("not yet")), name)


def test_it_says_what_it_fails_with():
    """Its repr has the error."""
    assert repr(ServiceWithError(ValueError("why"))) == "ServiceWithError(ValueError('why'))"


def test_an_error_does_not_grow():
    """An error that is raised often does not keep what it went through before."""
    error = ValueError("why")
    service = ServiceWithError(error)
    depths = set[int]()
    for _ in range(5):
        with pytest.raises(ValueError, match="why"):
            service.get_status()
        depths.add(len(traceback.extract_tb(error.__traceback__)))
    assert len(depths) == 1


def test_functions_of_the_package_fail():
    """A program in which it is the current service gets the error from every function."""
    error = ValueError("why")
    with jobqueue.use_service(ServiceWithError(error)), pytest.raises(ValueError, match="why") as caught:
        jobqueue.enqueue("t", 1)
    assert caught.value is error


def test_no_worker_runs_on_it():
    """A worker pool cannot be started, and leaves its registry free."""
    registry = Registry()
    with pytest.raises(ValueError, match="why"):
        WorkerPool(ServiceWithError(ValueError("why")), registry).start()
    registry.register_func_for_job_type("t", lambda _: None)
