"""Jobs join the caller's transaction whatever its driver and framework is, and leave all of them as they should be."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

import jobqueue_pg
from jobqueue import DuplicateJobError, Job, JobBundle
from jobqueue.queue_service import QueueService
from tests.fixtures.joining import CALLERS, Caller
from tests.fixtures.listening import Ear
from tests.fixtures.stores import Connection, events, make_bundle, make_job

HOSTILE = "100 % %s %(x)s {schema} 'quoted' \"too\" \\ back\\\\slashed é ☃ $1 :name ?"


KINDS = ["psycopg", "psycopg2", "SQLAlchemy on psycopg", "session on psycopg2", "Flask-SQLAlchemy", "Django's alias"]


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest, queue: str) -> Iterator[Caller]:
    """The application's own connection, in a transaction or about to begin one, by every driver and framework."""
    with CALLERS[request.param](queue) as caller:
        yield caller


def add_in_every_way(service: QueueService, connection: object) -> tuple[list[Job], JobBundle]:
    """Add jobs one by one and by COPY, with keys and without, quietly and not, and a bundle."""
    jobs = [service.enqueue("t", HOSTILE, connection=connection)]
    jobs += service.add_jobs([make_job(payload=HOSTILE) for _ in range(3)], connection=connection)
    jobs += service.add_jobs([make_job(payload=[HOSTILE, number]) for number in range(100)], connection=connection)
    jobs += [service.enqueue("t", 1, unique_key=HOSTILE, connection=connection)]
    jobs += [service.enqueue("t", 1, notify=False, connection=connection)]
    return jobs, service.add_bundle(make_bundle(2), connection=connection)


@pytest.mark.parametrize("caller", list(CALLERS), indirect=True)
def test_commit_makes_it_exist(service: QueueService, caller: Caller, ear: Ear) -> None:
    """What was added is seen, and heard of, when the caller commits, and not before."""
    jobs, bundle = add_in_every_way(service, caller.given)
    assert service.get_status().is_zero
    assert events(ear) == []
    caller.commit()
    stored = {job.id: job.payload for job in service.get_all_jobs_to_do()}
    assert stored == {job.id: job.payload for job in [*jobs, *bundle.jobs]}
    assert len(events(ear)) > 0


def test_rollback_leaves_nothing(service: QueueService, caller: Caller, ear: Ear) -> None:
    """When the caller's transaction rolls back, nothing that was added in it ever existed, and nobody heard of it."""
    add_in_every_way(service, caller.given)
    caller.rollback()
    assert service.get_status().is_zero
    assert events(ear) == []


def test_job_stands_with_the_callers_own_row(service: QueueService, caller: Caller, db: Connection) -> None:
    """The job is in one transaction with what the caller writes before and after it."""
    db.execute("create table if not exists worker.own (said text)")
    for ends in (caller.rollback, caller.commit):
        caller.execute("insert into worker.own values ('before')")
        service.enqueue("t", 1, connection=caller.given)
        caller.execute("insert into worker.own values ('after')")
        ends()
    assert db.execute("select said from worker.own order by said").fetchall() == [("after",), ("before",)]
    assert service.get_status().num_jobs == 1
    db.execute("drop table worker.own")


def test_savepoints_take_their_jobs_with_them(service: QueueService, caller: Caller) -> None:
    """Rolling a savepoint back takes away what was added since it, in every way, and no more."""
    kept = [service.enqueue("t", 1, connection=caller.given)]
    with suppress(RuntimeError), caller.savepoint():
        add_in_every_way(service, caller.given)
        with caller.savepoint():
            add_in_every_way(service, caller.given)
        raise RuntimeError
    with caller.savepoint():
        kept += [service.enqueue("t", 2, connection=caller.given)]
        with suppress(RuntimeError), caller.savepoint():
            service.enqueue("t", 3, connection=caller.given)
            raise RuntimeError
    caller.commit()
    assert {job.id for job in service.get_all_jobs_to_do()} == {job.id for job in kept}


def test_a_conflict_of_keys_leaves_the_transaction_usable(service: QueueService, caller: Caller) -> None:
    """Who cannot have a key learns who holds it, as it is in the database; and his transaction goes on."""
    holder = service.enqueue("t", {"of": "holder"}, unique_key="k")
    caller.execute("set local timezone to 'Asia/Tokyo'")
    got = service.enqueue("t", {"of": "late"}, unique_key="k", connection=caller.given)
    assert got.is_duplicate
    assert (got.id, got.payload) == (holder.id, {"of": "holder"})
    assert str(got.created_at) == str(service.get_job(holder.id).created_at)
    with pytest.raises(DuplicateJobError) as caught:
        service.enqueue("t", {}, unique_key="k", on_conflict="raise", connection=caller.given)
    assert caught.value.existing_id == holder.id
    service.enqueue("t", {"of": "more"}, unique_key="k", on_conflict="replace_payload", connection=caller.given)
    caller.commit()
    assert service.get_job(holder.id).payload == {"of": "more"}
    assert service.get_status().num_jobs == 1


def test_a_key_that_is_undecided(queue: str, service: QueueService, caller: Caller, db: Connection) -> None:
    """Who waits in vain for another transaction is told so, and goes on in his own."""
    with db.transaction():
        service.enqueue("t", 1, unique_key="k", connection=db)
        with jobqueue_pg.connect(queue, unique_lock_timeout=timedelta(milliseconds=10)) as impatient:
            with pytest.raises(DuplicateJobError) as caught:
                impatient.enqueue("t", 1, unique_key="k", connection=caller.given)
            assert caught.value.pending
    service.enqueue("t", 2, connection=caller.given)
    caller.commit()
    assert service.get_status().num_jobs == 2


def test_a_duplicate_is_named_and_a_savepoint_saves_the_rest(service: QueueService, caller: Caller) -> None:
    """An id that is there already is named; it spoils the savepoint around it, and nothing outside that."""
    job = service.enqueue("t", 1)
    kept = service.enqueue("t", 2, connection=caller.given)
    with pytest.raises(DuplicateJobError) as caught, caller.savepoint():
        service.add_job(make_job(id=job.id), connection=caller.given)
    assert caught.value.existing_id == job.id
    also_kept = service.enqueue("t", 3, connection=caller.given)
    caller.commit()
    assert {job.id for job in service.get_all_jobs_to_do()} == {job.id, kept.id, also_kept.id}
