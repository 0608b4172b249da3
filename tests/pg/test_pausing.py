"""Pauses in PostgreSQL: what claims that go on where others ended know of them, and what is left of them."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import jobqueue_pg
from jobqueue import InvalidJobError, Registry
from jobqueue.queue_service import QueueService
from jobqueue_pg.store import PostgresStore
from jobqueue_pg.watermarks import Watermarks
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.fixtures.blocking import blocked
from tests.fixtures.go_client import GoClient
from tests.fixtures.listening import Ear
from tests.fixtures.stores import CLAIMANT, START, Clock, Connection, add, claim, fetch_all, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers

SECOND = timedelta(seconds=1)


def looking_narrowly(store: PostgresStore, workers: PostgresWorkerStore) -> None:
    """Have the next claims of *workers* go on where the last ones ended."""
    workers._watermarks = Watermarks(lambda: 1000.0)
    add(store, *(make_job("mail") for _ in range(60)), *(make_job("other") for _ in range(90)))
    assert len(claim(workers, 100)) == 100
    assert not workers._watermarks.next_look(["*"]).is_full


def test_claims_that_go_on_obey_at_once(store: PostgresStore, worker_store: PostgresWorkerStore) -> None:
    """A narrow look, made of what was seen before the pause, claims nothing of what is paused since."""
    looking_narrowly(store, worker_store)
    store.pauses.pause("other", until=None, lasts=None, reason=None)
    add(store, make_job("mail"))
    assert [job.type for job in claim(worker_store, 2)] == ["mail"]


def test_what_is_paused_is_no_reason_to_look_fully(store: PostgresStore, worker_store: PostgresWorkerStore) -> None:
    """A paused job that would come first does not keep narrow looks from going on."""
    looking_narrowly(store, worker_store)
    store.pauses.pause("mail", until=None, lasts=None, reason=None)
    add(store, make_job("mail", priority=9))
    assert [job.type for job in claim(worker_store, 2)] == ["other", "other"]
    assert not worker_store._watermarks.next_look(["*"]).is_full


def test_ended_pauses_are_swept_up(store: PostgresStore, db: Connection, clock: Clock) -> None:
    """Whoever pauses something deletes what has ended, of back-offs after an hour, and waits for nobody."""
    for name in ("a", "b", "c"):
        store.pauses.pause(name, until=None, lasts=SECOND, reason=None)
    with closing(store.for_workers()) as workers:
        workers.back_off("d", "back-off: d", timedelta(0))
    clock.advance(2 * SECOND)
    with closing(psycopg.connect(db.info.dsn)) as holder:
        holder.execute("select from worker.paused_type where type = 'b' for update")
        store.pauses.pause("e", until=None, lasts=None, reason=None)
    assert fetch_all(db, "select type from worker.paused_type order by type") == ["b", "d", "e"]
    clock.advance(timedelta(hours=1))
    store.pauses.pause("f", until=None, lasts=None, reason=None)
    assert fetch_all(db, "select type from worker.paused_type order by type") == ["e", "f"]


def test_an_endless_moment_is_none(store: PostgresStore, worker_store: PostgresWorkerStore, db: Connection) -> None:
    """A pause until infinity, which another program may write, holds, and is no moment to look again."""
    db.execute("insert into worker.paused_type (type, until) values ('mail', 'infinity')")
    add(store, make_job("mail"))
    trip = worker_store.make_trip([], ["*"], 1, CLAIMANT)
    assert (trip.claimed, trip.next_due_in) == ((), None)
    (found,) = store.pauses.paused_types()
    assert found.until is not None


@pytest.mark.parametrize("act", ["pause", "resume"])
def test_what_is_added_meanwhile_is_told_of(queue: str, service: QueueService, other_db: Connection, act: str) -> None:
    """A job that is committed while its pause ends, or gets an end, but has not yet, is told of once more."""
    service.pause("mail:*")
    first = service.enqueue("mail:a", 1)
    acts = {"pause": lambda: service.pause("mail:*", SECOND), "resume": lambda: service.resume("mail:*")}
    with Ear(queue) as ear:
        with other_db.transaction():
            other_db.execute("select from worker.paused_type for update")
            with blocked(other_db, acts[act]) as later:
                late = service.enqueue("mail:b", 1)
                other_db.execute("commit")
        assert later.result(10)
        told = [notice["id"] for channel, notice in ear.heard() if channel.endswith("job_available")]
    assert sorted(told) == sorted(map(str, [first.id, late.id, late.id]))


# --- the service


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda service: service.pause("a*b"), "neither a job type"),
        (lambda service: service.pause(""), "1 to 100 characters"),
        (lambda service: service.resume("mail*"), "neither a job type"),
        (lambda service: service.pause("mail", timedelta(0)), "has to last"),
        (lambda service: service.pause("mail", timedelta.max), "too long"),
        (lambda service: service.pause("mail", datetime(2040, 1, 1)), "no time zone"),  # noqa: DTZ001 - that is it
        (lambda service: service.pause("mail", datetime(2020, 1, 1, tzinfo=UTC)), "which has passed"),
        (lambda service: service.pause("mail", "for lunch"), "must be a datetime or a timedelta, not str"),
        (lambda service: service.pause("mail", None, "\0"), "cannot store"),
        (lambda service: service.pause("mail", None, 5), "must be a str"),
    ],
)
def test_what_cannot_be_paused(service: QueueService, act: Callable[[QueueService], object], message: str) -> None:
    """A name that is none, and an end that has passed or is no moment, are refused, and nothing is paused."""
    with pytest.raises(InvalidJobError, match=message):
        act(service)
    assert service.paused_types() == []


def test_claims_by_hand_obey(service: QueueService) -> None:
    """What is paused is not claimed by hand either; the length of a pause counts by the database's clock."""
    service.enqueue("mail", 1)
    paused = service.pause("mail", timedelta(hours=1), "by hand")
    assert paused.until == paused.paused_at + timedelta(hours=1)
    assert service.paused_types() == [paused]
    assert service.get_status().paused == (paused,)
    assert service.claim("*") == []
    assert service.resume("mail")
    (claim,) = service.claim("*")
    claim.finish()


# --- worker pools


def runs_of(registry: Registry, *types: str) -> list[Any]:
    """Return what the payloads of runs will be noted in."""
    ran: list[Any] = []

    def note(payload: int) -> None:
        ran.append(payload)

    for name in types:
        registry.register_func_for_job_type(name, note)
    return ran


def test_idle_workers_wake_when_it_is_over(workers: Workers, registry: Registry) -> None:
    """Nobody polls: what is resumed is looked for at once, and what is paused until a moment, then."""
    ran = runs_of(registry, "mail", "other")
    service = workers.service()
    service.pause("mail")
    workers.start_on(service, registry)
    service.enqueue("mail", 1)
    service.enqueue("other", 2)
    wait_until(lambda: ran == [2])
    assert service.resume("mail")
    wait_until(lambda: ran == [2, 1])
    service.pause("mail", timedelta(seconds=0.5))
    service.enqueue("mail", 3)
    wait_until(lambda: ran == [2, 1, 3])


def test_a_shorter_pause_is_heard_of(workers: Workers, registry: Registry) -> None:
    """Workers that wait for the end of a pause learn that it comes earlier."""
    ran = runs_of(registry, "mail")
    service = workers.service()
    service.pause("mail", timedelta(hours=1))
    pool = workers.start_on(service, registry)
    service.enqueue("mail", 1)
    assert pool._crew is not None
    dispatcher = pool._crew._dispatcher
    wait_until(lambda: dispatcher.desks[0].alarms and not dispatcher._trips)
    service.pause("mail", timedelta(seconds=0.3))
    wait_until(lambda: ran == [1])


def test_pauses_of_another_schema_are_its_own(migrated: str) -> None:
    """A queue in another schema of the database goes on."""
    jobqueue_pg.migrate(migrated, schema="billing")
    with (
        jobqueue_pg.connect(migrated, origin="tests") as service,
        jobqueue_pg.connect(migrated, schema="billing", origin="tests") as billing,
    ):
        service.pause("*")
        billing.enqueue("mail", START.isoformat())
        (claim,) = billing.claim("*")
        claim.finish()


def test_go_does_not_obey(service: QueueService, go: GoClient) -> None:
    """A program of go-jobqueue on the same tables claims what is paused, as it knows nothing of it."""
    job = service.enqueue("mail", 1)
    service.pause("mail")
    claimed = go.start_next_job_or_nil(["mail"])
    assert claimed is not None
    assert claimed["id"] == job.id
