"""What each role can do about schedules, and what it cannot."""

from datetime import timedelta

import pytest

from jobqueue import BackendError, Registry, WorkerPool
from tests.fixtures.roles import MAY_NOT
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def assert_refused(*calls):
    for call in calls:
        with pytest.raises(BackendError, match=MAY_NOT):
            call()


def test_a_worker_keeps_what_its_code_declares(service_as, connection):
    """It adds and changes schedules, sees to their ticks, and forgets old ones; it removes none."""
    ran = []
    for every in (2 * SECOND, SECOND):
        registry = Registry()
        registry.scheduled("s", every=every)(lambda: ran.append(1))
        with service_as("worker") as service, WorkerPool(service, registry, threads=1):
            before = len(ran)
            wait_until(lambda before=before: len(ran) > before, 20)
            assert service.get_schedule("s").every == every
            assert service.get_schedule_ticks("s")
            assert_refused(lambda: service.remove_schedule("s"))
    assert fetch_all(connection, "select name from worker.schedule") == ["s"]


def test_a_manager_manages_schedules(service_as):
    """It does everything about them."""
    with service_as("manager") as service:
        service.add_schedule("s", "t", every=HOUR)
        service.change_schedule("s", every=SECOND)
        service.pause_schedule("s")
        service.resume_schedule("s")
        service.run_schedule_now("s")
        wait_until(service.tick_schedules)
        assert len(service.get_schedule_ticks("s")) >= 2
        assert service.remove_schedule("s") is True


def test_an_observer_sees_schedules(service_as):
    """It reads them and what has become of their ticks, and changes nothing."""
    with service_as("manager") as manager, service_as("observer") as service:
        manager.add_schedule("s", "t", every=SECOND)
        wait_until(manager.tick_schedules)
        assert [schedule.name for schedule in service.get_schedules()] == ["s"]
        assert service.get_schedule_ticks("s")
        wait_until(lambda: manager.get_schedule("s").next_tick_at)
        assert_refused(
            lambda: service.add_schedule("r", "t", every=HOUR),
            lambda: service.change_schedule("s", every=HOUR),
            lambda: service.pause_schedule("s"),
            lambda: service.run_schedule_now("s"),
            lambda: service.remove_schedule("s"),
        )


def test_an_enqueuer_knows_of_no_schedules(service_as):
    """It can neither read nor change them."""
    with service_as("enqueuer") as service:
        assert_refused(
            service.get_schedules, service.tick_schedules, lambda: service.add_schedule("s", "t", every=HOUR)
        )
