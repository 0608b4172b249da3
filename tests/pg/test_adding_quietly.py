"""Jobs are added without a NOTIFY: in one round trip, for that call alone, and found by whoever looks."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import jobqueue
from jobqueue import DuplicateJobError, Registry
from jobqueue.queue_service import QueueService
from jobqueue_pg import adding
from tests.fixtures.listening import Ear
from tests.fixtures.stores import Connection, events, fetch_all, make_bundle, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers

MANY = adding._LEAST_JOBS_TO_COPY

Way = Callable[[QueueService, Any], object]

WAYS: dict[str, Way] = {
    "add_job": lambda service, connection: service.add_job(make_job(), notify=False, connection=connection),
    "enqueue": lambda service, connection: service.enqueue("t", 1, notify=False, connection=connection),
    "enqueue later": lambda service, connection: service.enqueue(
        "t", 1, delay=timedelta(0), notify=False, connection=connection
    ),
    "add_jobs": lambda service, connection: service.add_jobs([make_job()], notify=False, connection=connection),
    "add_bundle": lambda service, connection: service.add_bundle(make_bundle(), notify=False, connection=connection),
    "add_jobs by COPY": lambda service, connection: service.add_jobs(
        [make_job() for _ in range(MANY)], notify=False, connection=connection
    ),
    "add_bundle by COPY": lambda service, connection: service.add_bundle(
        make_bundle(MANY), notify=False, connection=connection
    ),
}


@pytest.fixture
def caller(queue: str) -> Iterator[Connection]:
    """The application's own connection, which begins a transaction with its first statement."""
    with closing(psycopg.connect(queue)) as connection:
        yield connection


class Counted(psycopg.Connection[Any]):
    """A connection that counts how often it waits for the server."""

    trips = 0

    def wait(self, *arguments: Any, **options: Any) -> Any:
        self.trips += 1
        return super().wait(*arguments, **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("whose", ["ours", "caller", "autocommit", "pipeline"])
def test_nobody_is_told(
    service: QueueService, caller: Connection, db: Connection, ear: Ear, way: str, whose: str
) -> None:
    """What is added quietly is committed without a word, and what is added next is told of."""
    connection = {"ours": None, "caller": caller, "autocommit": db, "pipeline": caller}[whose]
    if whose == "pipeline":
        with caller.pipeline():
            WAYS[way](service, connection)
    else:
        WAYS[way](service, connection)
    caller.commit()
    assert events(ear) == []
    assert not service.get_status().is_zero
    loud = service.enqueue("t", 1, connection=connection)
    caller.commit()
    assert events(ear) == [("job_available", loud.id)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", ["off", "on", ""])
def test_for_that_call_alone(service: QueueService, caller: Connection, way: str, before: str) -> None:
    """In the caller's transaction, jobqueue.notify is afterwards what it was before, and what follows is told of."""
    caller.execute("select set_config('jobqueue.notify', %s, true)", [before])
    WAYS[way](service, caller)
    assert fetch_all(caller, "select current_setting('jobqueue.notify')") == [before]


@pytest.mark.parametrize("way", ["add_job", "add_jobs", "add_bundle"])
def test_one_round_trip(service: QueueService, queue: str, way: str) -> None:
    """Few jobs are added quietly by one statement, as they are with a word."""
    with closing(Counted.connect(queue, autocommit=True)) as counted:
        counted.trips = 0
        WAYS[way](service, counted)
        assert counted.trips == 1


@pytest.mark.parametrize("number", [2, MANY])
def test_what_is_refused(service: QueueService, caller: Connection, ear: Ear, number: int) -> None:
    """After a savepoint that is rolled back, the transaction is as before: what is added in it then is told of."""
    job = make_job()
    service.add_job(job, notify=False)
    with pytest.raises(DuplicateJobError), caller.transaction():
        service.add_jobs([*(make_job() for _ in range(number)), job], notify=False, connection=caller)
    loud = service.enqueue("t", 1, connection=caller)
    caller.commit()
    assert events(ear) == [("job_available", loud.id)]


def test_workers_find_it_by_looking(workers: Workers, service: QueueService) -> None:
    """Workers that nobody tells run what was added quietly after poll_interval, or when they next look."""
    ran: list[int] = []
    registry = Registry()
    registry.register_func_for_job_type("t", ran.append)
    workers.start(registry, 1, poll_interval=timedelta(seconds=0.2))
    with jobqueue.use_service(service):
        jobqueue.enqueue("t", 1, notify=False)
        wait_until(lambda: ran == [1])
        jobqueue.add_jobs([jobqueue.Job.new("t", 2)], notify=False)
        wait_until(lambda: ran == [1, 2])
        jobqueue.add_job(jobqueue.Job.new("t", 3), notify=False)
        wait_until(lambda: ran == [1, 2, 3])
        jobqueue.add_bundle(jobqueue.JobBundle.new("b", [jobqueue.JobDesc(4, type="t")]), notify=False)
        wait_until(lambda: ran == [1, 2, 3, 4])
