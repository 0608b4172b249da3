"""The notifier over LISTEN: its one connection and its loss, several schemas, notifications of other programs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from jobqueue.events import ClaimLost, Connected, Event, JobAvailable, JobBundleStopped, JobStopped
from jobqueue.health import Health
from jobqueue.models import new_id
from jobqueue_pg import schema
from jobqueue_pg.notifier import PostgresNotifier, SilentNotifier
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import CLAIMANT, Connection, fetch_all, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of

KINDS = (JobAvailable, JobStopped, JobBundleStopped, ClaimLost)
NAME = "the-notifier"


@pytest.fixture
def notifier(queue: str, db: Connection) -> Iterator[PostgresNotifier]:
    """The notifier of `queue`, whose session bears a name."""
    # The server may still be about to end that of the test before.
    wait_until(lambda: connections_of(db, NAME) == 0)
    conninfo = make_conninfo(queue, application_name=NAME)
    with closing(PostgresNotifier(conninfo, schema="worker", vital=Health().vital("listener"))) as notifier:
        yield notifier


def subscribe(notifier: PostgresNotifier, *kinds: type[Event]) -> tuple[list[Event], Callable[[], None]]:
    """Return what is heard, and how to end that, when Connected has been heard."""
    events: list[Event] = []
    end = notifier.subscribe(events.append, *kinds)
    wait_until(lambda: events)
    return events, end


def notify(connection: Connection, channel: str, payload: str) -> None:
    connection.execute("select pg_notify(%s, %s)", [channel, payload])


def test_one_connection_from_the_first_subscriber_on(notifier: PostgresNotifier, db: Connection) -> None:
    """However many subscribe, there is one connection and one thread; none before the first, none after the end."""
    assert connections_of(db, NAME) == 0
    assert not notifier.is_listening
    for _ in range(5):
        subscribe(notifier, *KINDS)
    assert connections_of(db, NAME) == 1
    assert [thread.name for thread in threading.enumerate()].count("jobqueue-listener") == 1
    notifier.close()
    wait_until(lambda: connections_of(db, NAME) == 0)
    assert "jobqueue-listener" not in {thread.name for thread in threading.enumerate()}


def test_a_lost_connection(notifier: PostgresNotifier, db: Connection) -> None:
    """When the connection is lost, subscribers are told as soon as they hear again, and they do."""
    first, _ = subscribe(notifier, JobAvailable)
    second, _ = subscribe(notifier, JobStopped)
    terminated = fetch_all(
        db, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", NAME
    )
    assert terminated == [True]
    wait_until(lambda: len(first) == 2 and len(second) == 2)
    assert first == second == [Connected(), Connected()]
    id = new_id()
    notify(db, "job_available", f'{{"id": "{id}", "type": "t", "origin": "o"}}')
    wait_until(lambda: len(first) == 3)
    assert first[2] == JobAvailable(id=id, type="t", origin="o", count=1)
    assert len(second) == 2


def test_nobody_hears_where_there_is_no_server() -> None:
    """Without a server a subscriber is not told that it hears, and the notifier can be closed all the same."""
    vital = Health().vital("listener")
    events: list[Event] = []
    with closing(PostgresNotifier("host=127.0.0.1 port=1 connect_timeout=1", schema="worker", vital=vital)) as notifier:
        notifier.subscribe(events.append, JobAvailable)
        wait_until(lambda: vital.is_down)
        assert not notifier.is_listening
    assert events == []


def test_events_come_with_the_commit(notifier: PostgresNotifier, queue: str, db: Connection) -> None:
    """What the caller's transaction adds is heard when it commits, and not before; what it rolls back is not heard."""
    events, _ = subscribe(notifier, JobAvailable)
    with closing(PostgresStore(queue)) as store:
        for rolls_back in (True, False):
            with db.transaction(force_rollback=rolls_back):
                job = make_job()
                store.add_job(job, delay=None, connection=db)
                assert events == [Connected()]
    wait_until(lambda: len(events) == 2)
    assert events[1] == JobAvailable(id=job.id, type="t", origin="o")


MALFORMED = ["", "no json", "[]", "null", "{}", '{"id": "no uuid", "type": "t", "origin": "o"}', '{"id": 1}']


@pytest.mark.parametrize("channel", ["job_available", "job_stopped", "job_bundle_stopped", "claim_lost"])
def test_notifications_that_make_no_sense(notifier: PostgresNotifier, db: Connection, channel: str) -> None:
    """What another program says in words of its own is passed over, and the next notification is heard."""
    events, _ = subscribe(notifier, *KINDS)
    for payload in MALFORMED:
        notify(db, channel, payload)
    id, claim_id = new_id(), new_id()
    told = f'{{"id": "{id}", "type": "t", "origin": "o", "willRetry": false, "claimId": "{claim_id}", "more": 1}}'
    notify(db, channel, told)
    wait_until(lambda: len(events) == 2)
    assert (
        events[1]
        == {
            "job_available": JobAvailable(id=id, type="t", origin="o"),
            "job_stopped": JobStopped(id=id, type="t", origin="o", will_retry=False),
            "job_bundle_stopped": JobBundleStopped(id=id, type="t", origin="o"),
            "claim_lost": ClaimLost(id=id, claim_id=claim_id),
        }[channel]
    )


def test_schemas_are_heard_apart(migrated: str) -> None:
    """Of two queues in one database each is heard by its own subscribers alone, whatever is told of."""
    heard: dict[str, list[Event]] = {}
    other = 'the "other" one'
    schema.migrate(migrated, schema=other)
    notifiers = [PostgresNotifier(migrated, schema=name, vital=Health().vital(name)) for name in ("worker", other)]
    for name, notifier in zip(("worker", other), notifiers, strict=True):
        heard[name], _ = subscribe(notifier, *KINDS)
    with closing(PostgresStore(migrated, schema=other)) as store, closing(store.for_workers()) as workers:
        job, later = make_job(max_retry_count=1), make_job()
        store.add_jobs([job, later])
        assert store.reschedule_job(later.id, None)
        (claimed, _) = workers.claim_jobs(["*"], 2, CLAIMANT)
        assert store.cancel_jobs([claimed.id]) == {job.id}
    said: list[Any] = [
        Connected(),
        JobAvailable(id=job.id, type="t", origin="o", count=2),
        JobAvailable(id=later.id, type="t", origin="o", count=1),
    ]
    wait_until(lambda: len(heard[other]) == 5)
    assert heard[other][:3] == said
    assert {type(event) for event in heard[other][3:]} == {ClaimLost, JobStopped}
    with closing(PostgresStore(migrated)) as store:
        store.add_job(job, delay=None)
    wait_until(lambda: len(heard["worker"]) == 2)
    for notifier in notifiers:
        notifier.close()
    assert len(heard[other]) == 5


def test_a_silent_notifier(queue: str) -> None:
    """A service that polls only says so: its subscribers hear Connected, and nothing more."""
    events: list[Event] = []
    notifier = SilentNotifier()
    end = notifier.subscribe(events.append, *KINDS)
    with closing(PostgresStore(queue)) as store:
        store.add_job(make_job(), delay=None)
    assert (events, notifier.is_listening) == ([Connected()], False)
    end()
    notifier.close()
