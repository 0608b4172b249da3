"""Schedules that code declares, and what tests of applications do with schedules."""

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

import jobqueue
from jobqueue import (
    DuplicateHandlerError,
    InvalidScheduleError,
    Job,
    JobContext,
    PayloadError,
    RegistrationError,
    Registry,
    RegistryFrozenError,
    UnavailableError,
    WorkerPool,
    WorkerSettings,
)
from jobqueue.backends.memory import MemoryNotifier, MemoryQueue, MemoryStore
from jobqueue.backends.memory.schedules import MemorySchedules
from jobqueue.events import JobsAdded
from jobqueue.queue_service import QueueService
from jobqueue.testing import ignore_jobs, synchronous_jobs
from tests.fixtures.waiting import wait_until

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def service() -> Iterator[QueueService]:
    """A queue in memory."""
    with closing(jobqueue.connect("memory://", origin="tests")) as service:
        yield service


# --- declaring


def test_a_declared_function_is_a_handler(registry):
    """It handles the type that is called like the schedule, with the options of a handler."""

    @registry.scheduled(
        "daily-report", cron="0 6 * * *", tz="Europe/Vienna", max_retry_count=2, timeout=HOUR, priority=5
    )
    def report() -> str:
        return "done"

    handler = registry.find("daily-report")
    assert handler is report
    assert (handler.max_retry_count, handler.timeout, report()) == (2, HOUR, "done")
    (schedule,) = registry.schedules()
    assert (schedule.name, schedule.type) == ("daily-report", "daily-report")
    assert (schedule.cron, schedule.tz) == ("0 6 * * *", "Europe/Vienna")
    assert (schedule.payload, schedule.max_retry_count, schedule.priority, schedule.origin) == ({}, 2, 5, None)


def test_functions_of_each_shape(registry, service):
    """A function may take nothing, the context, the payload, or its keys."""
    seen = []
    registry.scheduled("nothing", every=HOUR)(lambda: seen.append("nothing"))

    @registry.scheduled("context", every=HOUR)
    def context(ctx: JobContext) -> None:
        seen.append(ctx.job.type)

    @registry.scheduled("whole", every=HOUR, payload=["whole"])
    def whole(payload: list[str]) -> None:
        seen.extend(payload)

    @registry.scheduled("keys", every=HOUR, payload={"what": "keys"})
    def keys(*, what: str) -> None:
        seen.append(what)

    with WorkerPool(service, registry, threads=1):
        wait_until(lambda: len(service.get_schedules()) == 4)
        for schedule in service.get_schedules():
            service.wait_for_job(service.run_schedule_now(schedule.name).id, 10)
    assert sorted(seen) == ["context", "keys", "nothing", "whole"]


def test_ticks_of_a_pool_in_memory(registry, service):
    """A pool over a queue in memory enqueues what is due, and runs it."""
    ran = []
    registry.scheduled("s", every=SECOND)(lambda: ran.append(1))
    with WorkerPool(service, registry, threads=1):
        wait_until(lambda: len(ran) >= 2)
        service.pause_schedule("s")
        assert service.get_schedule("s").paused
    assert service.health()["parts"]["scheduler"]["state"] == "up"


def test_an_outage_is_asked_about_often(registry):
    """However long the rows are out of reach, a pool looks for them each poll interval."""
    looks = []

    class Away(MemorySchedules):
        def look(self, limit, besides=()):
            looks.append(limit)
            raise UnavailableError("away")

    queue = MemoryQueue()
    store = MemoryStore(queue, schedules=Away)
    settings = WorkerSettings(poll_interval=SECOND / 20)
    with (
        closing(QueueService(store=store, notifier=MemoryNotifier(queue), settings=settings, origin="o")) as service,
        WorkerPool(service, registry, threads=1),
    ):
        wait_until(lambda: len(looks) >= 8, 10)  # which took half a minute and more at ever longer delays


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, InvalidScheduleError),
        ({"cron": "0 0 30 2 *"}, InvalidScheduleError),
        ({"every": SECOND / 2}, InvalidScheduleError),
        ({"every": HOUR, "payload": {1}.__class__}, PayloadError),
        ({"every": HOUR, "timeout": "long"}, RegistrationError),
    ],
)
def test_what_cannot_be_declared(registry, options, error):
    """It is refused where it is declared, and then neither handled nor scheduled."""
    with pytest.raises(error):
        registry.scheduled("s", **options)(lambda: None)
    assert (registry.schedules(), registry.registered_job_types()) == ([], [])


@pytest.mark.parametrize(
    ("payload", "wrong"),
    [(None, r"\$.feed: is missing"), ({"feed": "x"}, r"\$.feed"), ({"feed": 1, "more": 2}, r"\$.more"), ([1], r"\$")],
)
def test_a_payload_that_its_function_cannot_take(registry, payload, wrong):
    """Each job would fail: it is refused where it is declared, with what is wrong."""

    def poll(*, feed: int) -> None: ...

    with pytest.raises(RegistrationError, match=rf"'s'.*{wrong}"):
        registry.scheduled("s", every=HOUR, payload=payload)(poll)
    assert (registry.schedules(), registry.registered_job_types()) == ([], [])
    registry.scheduled("s", every=HOUR, payload={"feed": 1})(poll)


@pytest.mark.parametrize("name", ["", "reports:*", "*", "x" * 101, 7])
def test_what_is_no_name(registry, name):
    """The name is a job type, too, and no pattern."""
    with pytest.raises(InvalidScheduleError):
        registry.scheduled(name, every=HOUR)
    assert registry.schedules() == []


def test_a_type_has_one_handler(registry):
    """A schedule cannot be declared for a type that is handled already, nor while threads run."""
    registry.handler("s")(lambda: None)
    with pytest.raises(DuplicateHandlerError):
        registry.scheduled("s", every=HOUR)(lambda: None)
    registry.freeze()
    with pytest.raises(RegistryFrozenError):
        registry.scheduled("r", every=HOUR)(lambda: None)
    assert registry.schedules() == []


def test_who_is_unregistered_is_not_declared(registry):
    """Schedules go with their handlers."""
    for name in ("a", "b", "c"):
        registry.scheduled(name, every=HOUR)(lambda: None)
    registry.unregister("b")
    assert [schedule.name for schedule in registry.schedules()] == ["a", "c"]
    registry.unregister()
    assert registry.schedules() == []


def test_schedules_have_the_default_registry(monkeypatch):
    """``jobqueue.scheduled`` is that of the default registry, as ``jobqueue.handler`` is."""
    assert jobqueue.scheduled.__self__ is jobqueue.handler.__self__
    assert isinstance(jobqueue.scheduled.__self__, Registry)


# --- adding for a handler


def test_a_schedule_for_a_handler(registry, service):
    """Its type and the number of its retries are the handler's."""
    handler = registry.handler("t", max_retry_count=4)(lambda: None)
    schedule = service.add_schedule("s", handler, every=HOUR)
    assert (schedule.type, schedule.max_retry_count) == ("t", 4)


# --- in tests of applications, and through middleware


class Stamps(jobqueue.AddMiddleware):
    """Changes what is added."""

    def add_job(self, service, job, add):
        return add(Job.new(job.type, {"stamped": True}, origin=job.origin, start_at=job.start_at))


def test_ticks_pass_through_middleware(service):
    """What a service was told to use stands between ticks and rows, too; the history names the job that was added."""
    service.use(Stamps())
    service.add_schedule("s", "t", every=SECOND)
    wait_until(service.tick_schedules)
    by_hand = service.run_schedule_now("s")
    jobs = service.list_jobs()
    assert all(job.payload == {"stamped": True} for job in jobs)
    assert {tick.job_id for tick in service.get_schedule_ticks("s")} == {job.id for job in jobs}
    assert by_hand in jobs


def test_ticks_can_be_ignored_or_run_at_once(registry, service):
    """Testing aids do with them what they do with whatever is added."""
    ran = []
    registry.handler("t")(lambda: ran.append(1))
    service.add_schedule("s", "t", every=SECOND)
    with jobqueue.use_service(service), ignore_jobs() as ignored:
        service.run_schedule_now("s")
        wait_until(service.tick_schedules)
    assert [job.type for job in ignored][:2] == ["t", "t"]
    with jobqueue.use_service(service), synchronous_jobs(registry):
        assert service.run_schedule_now("s").succeeded
    assert (ran, service.get_status().num_jobs) == ([1], 0)


def test_observers_hear_of_what_is_scheduled(service):
    """What ticks add, and what is added by hand, is told of as all that is added."""
    seen = []
    service.add_observer(seen.append, JobsAdded)
    service.add_schedule("s", "t", every=SECOND)
    wait_until(service.tick_schedules)
    service.run_schedule_now("s")
    wait_until(lambda: sum(len(event.jobs) for event in seen) >= 2)
    assert {job for event in seen for job in event.jobs} == set(service.list_jobs())


# --- beside the jobs of a pool


def test_one_guest_at_a_time(rig):
    """Maintenance and schedules take turns on the connections of trips, one of which is left for these."""
    entered = threading.Event()

    def enter() -> None:
        with rig.dispatcher.lane():
            entered.set()

    second = threading.Thread(target=enter)
    with rig.dispatcher.lane():
        second.start()
        assert not entered.wait(0.3)
        (job,) = rig.add(1)
        assert rig.ask().result(5) == job
    second.join(10)
    assert entered.is_set()
