"""What listeners ask of the server, what disturbs them, and how they end."""

import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from jobqueue import JobQueueError
from jobqueue.events import Connected, JobBundleStopped, JobStopped
from jobqueue.health import Health
from jobqueue.models import new_id
from jobqueue_pg.notifier import Listener, Subscription
from tests.fixtures.listeners import Hearing
from tests.fixtures.stores import make_bundle
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of, wait_for_end


@pytest.fixture
def adding(workers):
    """A service without listeners."""
    return workers.service(poll_only=True)


@pytest.fixture
def statements(monkeypatch):
    """What listener threads execute, as text, in order."""
    made: list[str] = []
    execute = psycopg.Connection.execute

    def note(connection, query, *args, **options):
        if threading.current_thread().name == "jobqueue-listener":
            made.append(query.as_string(None).replace('"', ""))
        return execute(connection, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", note)
    return made


# --- what is asked of the server


def test_listen_is_said_only_for_those_who_hear(workers, adding, statements, db):
    """LISTEN for a channel follows its first listener, UNLISTEN its last one, and there is one connection at most."""
    service = workers.service(application_name="hearing")
    service.get_status()
    # The server may still be about to end the session in which the service looked around.
    wait_until(lambda: connections_of(db, "hearing") == 1)
    assert statements == []
    service.add_job_stopped_listener(print)
    service.add_job_stopped_listener(repr)
    assert statements == ["listen job_stopped"]
    service.add_job_bundle_stopped_listener(print)
    assert statements == ["listen job_stopped", "listen job_bundle_stopped"]
    assert connections_of(db, "hearing") == 2
    statements.clear()
    service.remove_job_stopped_listener(print)
    service.remove_job_bundle_stopped_listener(print)
    wait_until(lambda: statements == ["unlisten job_bundle_stopped"])
    service.remove_job_stopped_listener(repr)
    wait_until(lambda: statements[1:] == ["unlisten job_stopped"])
    statements.clear()
    job = adding.enqueue("t", 1)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(service.wait_for_job, job.id, 10)
        wait_until(lambda: statements == ["listen job_stopped"])
        adding.cancel_job(job.id)
        assert waiting.result(10).stopped
    wait_until(lambda: statements == ["listen job_stopped", "unlisten job_stopped"])
    assert connections_of(db, "hearing") == 2


def test_workers_hear_no_ends(workers, registry, statements):
    """A pool without listeners listens for jobs, lost claims and changed schedules only."""
    registry.register_func_for_job_type("t", lambda _: None)
    service = workers.service()
    workers.start_on(service, registry)
    wanted = ["listen claim_lost", "listen job_available", "listen schedule_changed"]
    wait_until(lambda: sorted(statements) == wanted)
    assert wait_for_end(service, service.enqueue("t", 1)).succeeded
    assert sorted(statements) == wanted


def test_a_service_that_polls_only_refuses_listeners(workers, adding):
    """A listener that would never be called is an error that says what to do; it is not there afterwards."""
    for add in (
        lambda: adding.add_listener(Hearing.__new__(Hearing)),
        lambda: adding.add_job_stopped_listener(print),
        lambda: adding.add_job_bundle_stopped_listener(print),
        lambda: adding.set_job_bundle_of_type_stopped_listener("b", print),
    ):
        with pytest.raises(JobQueueError, match=r"polls only.*listen_conninfo"):
            add()
    assert not adding.listeners.kinds
    adding.remove_job_stopped_listener(print)


def test_who_cannot_hear_is_refused_and_replaces_nobody(workers):
    """None, too, is a TypeError, and no way to remove the listener that is there."""
    service, heard = workers.service(), []
    service.set_job_bundle_of_type_stopped_listener("b", heard.append)
    with pytest.raises(TypeError, match="__call__"):
        service.set_job_bundle_of_type_stopped_listener("b", None)
    bundle = service.add_bundle(make_bundle(1))
    service.cancel_job(bundle.jobs[0].id)
    assert wait_until(lambda: heard) == [bundle]


# --- what else is said


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 7_000,
        '{"id": "x", "type": "t", "origin": "o", "count": 1e999}',
        json.dumps({"id": 1, "type": "t"}),
        json.dumps({"id": [], "type": {}, "origin": None, "willRetry": ""}),
        "",
    ],
)
def test_nonsense_costs_no_connection(workers, adding, db, payload, statements):
    """Whatever anybody says on our channels, the listener stays, and the next event is heard."""
    hearing = Hearing(workers.service())
    statements.clear()
    db.execute("select pg_notify('job_stopped', %s)", [payload])
    job = adding.enqueue("t", 1)
    adding.cancel_job(job.id)
    wait_until(lambda: hearing.jobs)
    assert hearing.jobs == [(job, False)]
    assert hearing.service.health()["parts"]["listener"]["last_error"] is None
    assert statements == []


def test_an_event_right_behind_an_answer_is_heard(queue, db):
    """A notification that is read together with the answer to a LISTEN is passed on before anything is waited for."""
    heard, id = [], new_id()
    told = json.dumps({"id": str(id), "type": "t", "origin": "o", "willRetry": False})
    first = Subscription(heard.append, frozenset({JobStopped}))
    second = Subscription(print, frozenset({JobBundleStopped}))

    def subscriptions():
        """Have somebody speak right before the listener has something more to ask for."""
        if not heard:
            return (first,)
        if not arrived(connection):
            db.execute("select pg_notify('job_stopped', %s)", [told])
            wait_until(lambda: arrived(connection))
        return (first, second)

    listener = Listener(queue, "", subscriptions, Health().vital("listener"))
    with listener._waker, listener._woken, psycopg.connect(queue, autocommit=True) as connection:
        listener._hear(connection)
        assert [type(event) for event in heard] == [Connected]
        listener._hear(connection)
    assert [type(event) for event in heard] == [Connected, JobStopped]
    assert heard[1].id == id


def arrived(connection) -> int:
    """Return how many bytes wait in the socket of a connection."""
    with socket.socket(fileno=os.dup(connection.fileno())) as peeking:
        try:
            return len(peeking.recv(65536, socket.MSG_PEEK))
        except BlockingIOError:
            return 0


# --- ending


def test_a_listener_closes_its_service(workers, adding, caplog):
    """It is called to its end, nobody waits for it, and nothing is left behind."""
    service = workers.service()
    closed = threading.Event()

    def close(job, will_retry):
        service.close()
        closed.set()

    service.add_job_stopped_listener(close)
    adding.cancel_job(adding.enqueue("t", 1).id)
    assert closed.wait(10)
    wait_until(lambda: not {thread.name for thread in threading.enumerate()} & {"jobqueue-events", "jobqueue-listener"})
    assert not caplog.records
