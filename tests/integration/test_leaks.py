"""What is started and stopped a great many times leaves nothing behind: no thread, file, connection or subscriber."""

import gc
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

import jobqueue
import jobqueue_pg
from jobqueue import Registry, WorkerPool
from jobqueue.events import JobAvailable
from jobqueue.health import Health
from jobqueue_pg.notifier import PostgresNotifier
from tests.fixtures.thorough import THOROUGH
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of

TIMES = 500 if THOROUGH else 100
SERVICES = 1000 if THOROUGH else 200


@contextmanager
def nothing_left(connection) -> Iterator[None]:
    """Compare what there is after the block with what there was before it: what others have left may have gone."""
    before = resources(connection)
    yield
    with suppress(AssertionError):
        wait_until(lambda: not resources(connection) - before)
    assert resources(connection) - before == Counter(), before


def resources(connection) -> Counter[str]:
    """Count what there is: threads by their names, files, connections."""
    gc.collect()
    found = Counter(thread.name for thread in threading.enumerate())
    found["files"] = len(list(Path("/dev/fd").iterdir()))
    found["connections"] = connections_of(connection, "jobqueue")
    return found


@pytest.fixture(params=["postgresql", "memory"])
def url(request) -> str:
    return request.getfixturevalue("migrated") if request.param == "postgresql" else "memory://"


@pytest.fixture
def warm_service(url) -> Iterator[jobqueue.Service]:
    """A service that was used before, and has whatever it makes at first need."""
    with connect(url) as service:
        use(service)
        service.remove_job_stopped_listener(hear)
        service.delete_all_jobs_and_bundles()
        yield service


def connect(url):
    return jobqueue.connect(url) if "://" in url else jobqueue_pg.connect(url)


def hear(job, will_retry):
    """Be a listener."""


def use(service):
    """Have all the threads that a service makes at first need."""
    service.add_job_stopped_listener(hear)
    job = service.enqueue("t", 1)
    [claim] = service.claim("t")
    claim.finish()
    assert service.wait_for_job(job.id, 10).succeeded


def test_worker_pools(warm_service, connection):
    """Workers, heartbeats, the keeper and maintenance come and go many times, and each time a job is done."""
    registry = Registry()
    done = threading.Semaphore(0)

    @registry.handler("t")
    def handle(number: int) -> None:
        done.release()

    with nothing_left(connection):
        for number in range(TIMES):
            with WorkerPool(warm_service, registry, threads=1):
                warm_service.enqueue("t", number)
                assert done.acquire(timeout=10)
    assert warm_service.get_status().by_state[jobqueue.State.SUCCEEDED] == TIMES


def test_listeners(warm_service, connection):
    """Listeners come and go many times, and a service that had some can be closed."""
    with nothing_left(connection):
        for _ in range(TIMES):
            warm_service.add_job_stopped_listener(hear)
            warm_service.remove_job_stopped_listener(hear)


def test_waiting(warm_service, connection):
    """Somebody waits many times, and is late each time."""
    job = warm_service.enqueue("t", 1, delay=timedelta(hours=1))
    with nothing_left(connection):
        for _ in range(TIMES):
            with pytest.raises(TimeoutError):
                warm_service.wait_for_job(job.id, 0)


def test_the_listener_thread(migrated, connection):
    """The thread that listens to PostgreSQL starts and stops many times, right after its start, too."""
    with nothing_left(connection):
        for number in range(TIMES):
            connected = threading.Event()
            notifier = PostgresNotifier(migrated, schema="worker", vital=Health().vital("listener"))
            notifier.subscribe(lambda event, connected=connected: connected.set(), JobAvailable)
            if number % 2:
                assert connected.wait(10)
            notifier.close()


def test_services(url, connection):
    """Hundreds of services are opened and closed, a tenth of them with a listener, a wait and a claim in between."""
    with nothing_left(connection):
        for number in range(SERVICES):
            with connect(url) as service:
                if number % 10 == 0:
                    use(service)
