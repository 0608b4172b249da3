"""Middleware that a service has for the runs of all its worker pools."""

import threading

import pytest

import jobqueue
from jobqueue import ClosedError, Registry, WorkerPool

PATIENCE = 10


@pytest.fixture
def service():
    """A service on a queue in memory."""
    with jobqueue.connect("memory://", origin="tests") as service:
        yield service


class Note:
    """Notes what passes, by its name, and which threads end."""

    def __init__(self, name, notes, error=None):
        self._name, self._notes, self._error = name, notes, error

    def __call__(self, context, run):
        self._notes.append(self._name)
        return run()

    def end_thread(self):
        self._notes.append(f"{self._name} ends {threading.current_thread().name}")
        if self._error is not None:
            raise self._error


def test_outside_of_what_pools_use(service):
    """It comes before what a pool was told to use, in the order in which it was added, in each pool."""
    notes, registry = [], Registry()
    registry.handler("t")(lambda payload: notes.append("run"))
    service.use_in_workers(Note("first", notes))
    service.use_in_workers(Note("second", notes))
    pool = WorkerPool(service, registry, threads=1)
    pool.use(lambda context, run: (notes.append("pool's"), run())[1])
    with pool:
        service.wait_for_job(service.enqueue("t", 1).id, PATIENCE)
    assert notes == [
        *["first", "second", "pool's", "run"],
        *["second ends jobqueue-worker-0", "first ends jobqueue-worker-0"],
    ]


def test_each_thread_is_ended_once(service, caplog):
    """Each worker thread has it end its part, the inner first; an error there is logged, and harms no other."""
    notes, registry = [], Registry()
    registry.handler("t")(lambda payload: None)
    service.use_in_workers(Note("a", notes))
    service.use_in_workers(Note("b", notes, ValueError("no")))
    with WorkerPool(service, registry, threads=2):
        pass
    assert sorted(notes) == [f"{name} ends jobqueue-worker-{number}" for name in "ab" for number in range(2)]
    told = [each.getMessage() for each in caplog.records if each.name == "jobqueue.middleware"]
    assert sorted(told) == [f"middleware could not end its part in jobqueue-worker-{number}" for number in range(2)]


def test_what_is_refused(service):
    """What cannot be called with a context and a run is refused, and so is a service that is closed."""
    with pytest.raises(TypeError, match="called with a context and a run"):
        service.use_in_workers(lambda: None)
    with jobqueue.connect("memory://") as closed:
        pass
    with pytest.raises(ClosedError):
        closed.use_in_workers(Note("a", []))
