"""Services that are of no use any more: closed ones, and those of a parent process."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from inspect import getmro
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

import pytest

import jobqueue
import jobqueue_pg
from jobqueue import AddMiddleware, ClosedError, JobBundle, JobDesc, ServiceListener, context
from jobqueue.models import new_id
from jobqueue.queue_service import QueueService
from jobqueue.service import Service
from tests.fixtures.stores import make_job

REFUSED: Final[Mapping[str, Callable[[Any], object]]] = {
    "store": lambda service: service.store,
    "notifier": lambda service: service.notifier,
    "add_job": lambda service: service.add_job(make_job()),
    "add_jobs": lambda service: service.add_jobs([]),
    "add_bundle": lambda service: service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")])),
    "enqueue": lambda service: service.enqueue("t", 1),
    "get_job": lambda service: service.get_job(new_id()),
    "get_job_bundle": lambda service: service.get_job_bundle(new_id()),
    "get_all_jobs_to_do": lambda service: service.get_all_jobs_to_do(),
    "get_all_jobs_started_before": lambda service: service.get_all_jobs_started_before(datetime.now(UTC)),
    "get_all_jobs_with_errors": lambda service: service.get_all_jobs_with_errors(),
    "list_jobs": lambda service: service.list_jobs(),
    "get_status": lambda service: service.get_status(),
    "reset_job": lambda service: service.reset_job(new_id()),
    "reset_jobs": lambda service: service.reset_jobs([]),
    "replay_job": lambda service: service.replay_job(new_id()),
    "cancel_job": lambda service: service.cancel_job(new_id()),
    "reschedule_job": lambda service: service.reschedule_job(new_id(), None),
    "delete_job": lambda service: service.delete_job(new_id()),
    "delete_jobs_from_origin": lambda service: service.delete_jobs_from_origin("o"),
    "delete_jobs_of_type": lambda service: service.delete_jobs_of_type("t"),
    "delete_finished_jobs": lambda service: service.delete_finished_jobs(),
    "delete_job_bundle": lambda service: service.delete_job_bundle(new_id()),
    "delete_job_bundles_from_origin": lambda service: service.delete_job_bundles_from_origin("o"),
    "delete_job_bundles_of_type": lambda service: service.delete_job_bundles_of_type("b"),
    "delete_all_jobs_and_bundles": lambda service: service.delete_all_jobs_and_bundles(),
    "pause": lambda service: service.pause("t"),
    "resume": lambda service: service.resume("t"),
    "paused_types": lambda service: service.paused_types(),
    "wait_for_job": lambda service: service.wait_for_job(new_id(), 0),
    "wait_for_bundle": lambda service: service.wait_for_bundle(new_id(), 0),
    "claim": lambda service: service.claim("t"),
    "add_observer": lambda service: service.add_observer(print),
    "add_listener": lambda service: service.add_listener(LISTENER),
    "add_job_stopped_listener": lambda service: service.add_job_stopped_listener(print),
    "add_job_bundle_stopped_listener": lambda service: service.add_job_bundle_stopped_listener(print),
    "set_job_bundle_of_type_stopped_listener": lambda service: service.set_job_bundle_of_type_stopped_listener(
        "b", print
    ),
    "set_on_error": lambda service: service.set_on_error(print),
    "use": lambda service: service.use(AddMiddleware()),
    "use_in_workers": lambda service: service.use_in_workers(print),
    "add_schedule": lambda service: service.add_schedule("s", "t", every=timedelta(hours=1)),
    "change_schedule": lambda service: service.change_schedule("s"),
    "get_schedule": lambda service: service.get_schedule("s"),
    "get_schedules": lambda service: service.get_schedules(),
    "pause_schedule": lambda service: service.pause_schedule("s"),
    "resume_schedule": lambda service: service.resume_schedule("s"),
    "run_schedule_now": lambda service: service.run_schedule_now("s"),
    "remove_schedule": lambda service: service.remove_schedule("s"),
    "get_schedule_ticks": lambda service: service.get_schedule_ticks("s"),
    "tick_schedules": lambda service: service.tick_schedules(),
    "attach": lambda service: service.attach(DEPENDENT),
    "count_jobs": lambda service: service.count_jobs(),
    "oldest_due_age": lambda service: service.oldest_due_age(),
    "recent_activity": lambda service: service.recent_activity(),
    "check_connection": lambda service: service.check_connection(),
    "replay_jobs": lambda service: service.replay_jobs(),
    "delete_jobs": lambda service: service.delete_jobs(type="t"),
    "clean": lambda service: service.clean(),
    "count_old_jobs": lambda service: service.count_old_jobs(),
    "close": lambda service: service.close(),
}
TAKEN: Final[Mapping[str, Callable[[Any], object]]] = {
    "settings": lambda service: service.settings,
    "origin": lambda service: service.origin,
    "listeners": lambda service: service.listeners,
    "max_payload_bytes": lambda service: service.max_payload_bytes,
    "vitals": lambda service: service.vitals,
    "add_middleware": lambda service: service.add_middleware,
    "work_middleware": lambda service: service.work_middleware,
    "health": lambda service: service.health(),
    "detach": lambda service: service.detach(DEPENDENT),
    "remove_listener": lambda service: service.remove_listener(LISTENER),
    "remove_observer": lambda service: service.remove_observer(print),
    "remove_job_stopped_listener": lambda service: service.remove_job_stopped_listener(print),
    "remove_job_bundle_stopped_listener": lambda service: service.remove_job_bundle_stopped_listener(print),
    "remove_job_bundle_of_type_stopped_listener": lambda service: service.remove_job_bundle_of_type_stopped_listener(
        "b"
    ),
    "remove_all_job_bundle_stopped_listeners": lambda service: service.remove_all_job_bundle_stopped_listeners(),
}


class Deaf(ServiceListener):
    """Hears nothing."""


class Idle:
    """Has nothing to finish."""

    def finish(self, timeout: object = None) -> bool:
        return timeout is None


LISTENER: Final = Deaf()
DEPENDENT: Final = Idle()


@pytest.fixture(autouse=True)
def no_default_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_default", None)


@pytest.fixture
def closed(queue: str) -> QueueService:
    service = jobqueue_pg.connect(queue)
    service.close()
    return service


def test_every_method_is_listed() -> None:
    """What follows is asked of everything that a service has."""
    everything = {name for part in getmro(Service) for name in vars(part) if not name.startswith("_")}
    assert REFUSED.keys() ^ TAKEN.keys() == everything


@pytest.mark.parametrize("name", REFUSED)
def test_every_method_of_a_closed_service_refuses(closed: QueueService, name: str) -> None:
    """A closed service raises ClosedError for whatever it is asked, even for nothing at all; it keeps no listener."""
    with pytest.raises(ClosedError):
        REFUSED[name](closed)
    assert not closed.listeners.kinds


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_closed_service_takes(closed: QueueService, name: str) -> None:
    """Its health and limits can be read, and what was added to it removed."""
    TAKEN[name](closed)


# --- forked processes


def _in_child(service: QueueService, conninfo: str, pipe: Pipe) -> None:
    """Use the parent's service, which must fail, then one of our own."""
    said = []
    for call in (service.get_status, lambda: service.enqueue("t", 1), service.close, jobqueue.close):
        try:
            call()
        except ClosedError as error:
            said.append(str(error))
        else:
            said.append("no error")
    with closing(jobqueue_pg.connect(conninfo)) as own:
        own.enqueue("from-the-child", 1)
    pipe.send((os.getpid(), said))
    pipe.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_service_in_a_forked_process(queue: str) -> None:
    """A forked process cannot use its parent's service, and is told why; both go on, each with its own."""
    service = jobqueue_pg.init_job_queue(queue)
    service.enqueue("before-the-fork", 1)
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=_in_child, args=(service, queue, there))
    child.start()
    there.close()
    assert here.poll(20)
    pid, said = here.recv()
    child.join(20)
    assert child.exitcode == 0
    assert len(said) == 4
    for message in said:
        assert str(pid) in message
        assert str(os.getpid()) in message
        assert "fork" in message
    assert set(service.get_status().by_type) == {"before-the-fork", "from-the-child"}
    jobqueue.close()
