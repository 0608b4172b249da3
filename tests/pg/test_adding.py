"""Jobs and bundles are added: in a transaction of our own or of the caller's, all or nothing, in one round trip."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.string import StrDumper

import jobqueue_pg
from jobqueue import (
    DuplicateJobError,
    InvalidJobError,
    Job,
    JobBundle,
    JobDesc,
    PayloadError,
    RawJSON,
    UnavailableError,
)
from jobqueue.models import new_id
from jobqueue.queue_service import QueueService
from jobqueue_pg import rows
from jobqueue_pg.store import PostgresStore
from tests.fixtures.listening import Ear
from tests.fixtures.stores import (
    Clock,
    Connection,
    assert_counts_true,
    events,
    fetch_all,
    insert_job,
    make_bundle,
    make_job,
)

FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def caller(queue: str) -> Iterator[Connection]:
    """The application's own connection, which begins a transaction with its first statement."""
    with closing(psycopg.connect(queue)) as connection:
        yield connection


class Counted(psycopg.Connection[Any]):
    """A connection that counts how often it waits for the server."""

    def wait(self, *arguments: Any, **options: Any) -> Any:
        self.trips = getattr(self, "trips", 0) + 1
        return super().wait(*arguments, **options)


def add_in_every_way(service: QueueService, connection: object) -> tuple[list[Job], JobBundle]:
    """Add five jobs, two of them as a bundle."""
    jobs = [service.add_job(make_job(), connection=connection)]
    jobs += service.add_jobs([make_job()], connection=connection)
    jobs += [service.enqueue("t", 1, connection=connection)]
    return jobs, service.add_bundle(make_bundle(2), connection=connection)


# --- the caller's transaction


def test_rollback_leaves_nothing(service: QueueService, caller: Connection, ear: Ear) -> None:
    """When the caller's transaction rolls back, nothing that was added in it ever existed, and nobody heard of it."""
    add_in_every_way(service, caller)
    caller.rollback()
    assert service.get_status().is_zero
    assert events(ear) == []


def test_commit_makes_it_exist(service: QueueService, caller: Connection, ear: Ear) -> None:
    """What was added is seen, and heard of, when the caller commits, and not before."""
    jobs, bundle = add_in_every_way(service, caller)
    assert service.get_status().is_zero
    assert events(ear) == []
    caller.commit()
    assert {job.id for job in service.get_all_jobs_to_do()} == {job.id for job in [*jobs, *bundle.jobs]}
    assert service.get_job_bundle(bundle.id).num_jobs == 2
    assert {id for _, id in events(ear)} == {*(job.id for job in jobs), bundle.jobs[0].id}


def test_job_and_own_row_go_together(service: QueueService, caller: Connection) -> None:
    """The job stands or falls with the row that the caller writes beside it, within a savepoint too."""
    caller.execute("create temporary table customer (email text)")
    caller.commit()
    for fails in (True, False):
        with caller.transaction(force_rollback=fails):
            caller.execute("insert into customer values ('ann')")
            service.enqueue("t", 1, connection=caller)
    caller.commit()
    assert fetch_all(caller, "select count(*) from customer") == [1]
    assert service.get_status().num_jobs == 1


def test_nested_transactions(service: QueueService, caller: Connection) -> None:
    """Rolling a savepoint back takes away what was added since it, and no more."""
    with caller.transaction():
        kept = service.enqueue("t", 1, connection=caller)
        with caller.transaction() as inner:
            service.enqueue("t", 2, connection=caller)
            raise psycopg.Rollback(inner)
        also_kept = service.enqueue("t", 3, connection=caller)
    assert {job.id for job in service.get_all_jobs_to_do()} == {kept.id, also_kept.id}


def test_transaction_is_the_callers_to_end(service: QueueService, caller: Connection) -> None:
    """Adding neither begins, commits nor changes anything else about the caller's transaction and connection."""
    caller.execute("set transaction isolation level serializable")
    add_in_every_way(service, caller)
    assert caller.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
    assert fetch_all(caller, "show transaction_isolation") == ["serializable"]
    assert not caller.autocommit
    caller.rollback()


def test_autocommit_connection(service: QueueService, db: Connection) -> None:
    """On an autocommit connection, a job exists as soon as it was added."""
    jobs, bundle = add_in_every_way(service, db)
    assert service.get_status().num_jobs == len(jobs) + bundle.num_jobs


def test_one_round_trip(service: QueueService, queue: str) -> None:
    """Each way of adding sends one statement and waits for one answer."""
    with closing(Counted.connect(queue, autocommit=True)) as counted:
        for add in (
            lambda: service.add_job(make_job(), connection=counted),
            lambda: service.add_jobs([make_job() for _ in range(50)], connection=counted),
            lambda: service.add_bundle(make_bundle(50), connection=counted),
            lambda: service.enqueue("t", 1, connection=counted),
            lambda: service.enqueue("t", 1, delay=timedelta(seconds=1), connection=counted),
        ):
            before = counted.trips = 0
            add()
            assert counted.trips - before == 1


def test_cursor_as_connection(service: QueueService, caller: Connection) -> None:
    """A cursor stands for its connection, and is left as it was."""
    cursor = caller.cursor()
    cursor.execute("select 1 union select 2 order by 1")
    add_in_every_way(service, cursor)
    assert cursor.fetchall() == [(1,), (2,)]
    caller.rollback()
    assert service.get_status().is_zero


@pytest.mark.parametrize(
    "options",
    [
        {"row_factory": dict_row},
        {"cursor_factory": psycopg.ClientCursor},
        {"cursor_factory": psycopg.RawCursor},
        {"prepare_threshold": None},
        {"prepare_threshold": 0},
    ],
    ids=["rows are dicts", "client cursors", "raw cursors", "never prepares", "prepares always"],
)
def test_connections_of_every_make(service: QueueService, queue: str, options: dict[str, Any]) -> None:
    """Whatever cursors and rows the caller's connection makes, jobs are added over it."""
    with closing(psycopg.connect(queue, **options)) as connection:
        jobs, bundle = add_in_every_way(service, connection)
        service.enqueue("t", {"a": "100 %s %(x)s"}, delay=timedelta(hours=1), connection=connection)
        connection.commit()
    assert service.get_status().num_jobs == len(jobs) + bundle.num_jobs + 1


def test_pipeline(service: QueueService, caller: Connection) -> None:
    """Within a pipeline, jobs are added like the caller's own statements."""
    with caller.pipeline():
        add_in_every_way(service, caller)
    caller.commit()
    assert service.get_status().num_jobs == 5


class NotAConnection:
    pass


@pytest.mark.parametrize("kind", ["str", "sqlite3", "async", "object", "bool"])
def test_connections_that_cannot_be_joined(service: QueueService, queue: str, kind: str) -> None:
    """What is no connection that can be joined is a TypeError that names its type, and nothing is added anywhere."""
    connection: object
    match kind:
        case "str":
            connection, named = queue, "builtins.str"
        case "sqlite3":
            connection, named = sqlite3.connect(":memory:"), "sqlite3.Connection"
        case "async":
            connection = psycopg.AsyncConnection.__new__(psycopg.AsyncConnection)
            named = r"psycopg.*AsyncConnection"
        case "bool":
            connection, named = False, "builtins.bool"
        case _:
            connection, named = NotAConnection(), "NotAConnection"
    for add in (
        lambda: service.add_job(make_job(), connection=connection),
        lambda: service.add_jobs([make_job()], connection=connection),
        lambda: service.add_bundle(make_bundle(), connection=connection),
        lambda: service.enqueue("t", 1, connection=connection),
    ):
        # The latter for a str where Django is set up, as some other test may have done in this process.
        with pytest.raises((TypeError, InvalidJobError), match=named):
            add()
    if isinstance(connection, sqlite3.Connection):
        connection.close()
    assert service.get_status().is_zero


def test_closed_connection(service: QueueService, caller: Connection) -> None:
    """A connection that is closed already is an UnavailableError."""
    caller.close()
    with pytest.raises(UnavailableError):
        service.enqueue("t", 1, connection=caller)
    assert service.get_status().is_zero


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", 1), InvalidJobError),
        (("x" * 101, 1), InvalidJobError),
        (("t\0", 1), InvalidJobError),
        (("t", None), PayloadError),
        (("t", float("nan")), PayloadError),
        (("t", "\0"), PayloadError),
        (("t", "\ud800"), PayloadError),
        (("t", object), PayloadError),
        (("t", "x" * 1024 * 1024), PayloadError),
    ],
    ids=lambda value: f"{value!r:.30}",
)
def test_refused_values_leave_the_transaction_usable(
    service: QueueService, caller: Connection, arguments: tuple[Any, Any], error: type[Exception]
) -> None:
    """What cannot be a job is refused before the database sees it, so that the caller's transaction goes on."""
    caller.execute("select 1")
    with pytest.raises(error):
        service.enqueue(*arguments, connection=caller)
    with pytest.raises(error):
        service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t"), JobDesc(arguments[1], type=arguments[0])]))
    service.enqueue("t", 1, connection=caller)
    caller.commit()
    assert service.get_status().num_jobs == 1


def test_limit_of_payloads_is_the_services(queue: str) -> None:
    """A service takes payloads up to its own limit, to the byte."""
    with closing(jobqueue_pg.connect(queue, max_payload_bytes=10)) as service:
        service.enqueue("t", "x" * 8)
        service.enqueue("t", "é" * 4)
        with pytest.raises(PayloadError, match="10"):
            service.enqueue("t", "x" * 9)
        with pytest.raises(PayloadError):
            service.enqueue("t", "é" * 5)


# --- duplicates


def test_duplicate_in_the_callers_transaction(service: QueueService, caller: Connection) -> None:
    """A duplicate ends the caller's transaction as any refused statement does; a savepoint saves it."""
    job = service.enqueue("t", 1)
    caller.execute("select 1")
    with pytest.raises(DuplicateJobError) as caught, caller.transaction():
        service.add_job(make_job(id=job.id), connection=caller)
    assert caught.value.existing_id == job.id
    service.enqueue("t", 2, connection=caller)
    caller.commit()
    assert service.get_status().num_jobs == 2


# --- many


def test_no_jobs(service: QueueService) -> None:
    """Adding no jobs does nothing."""
    assert service.add_jobs([]) == []
    assert service.add_jobs(iter(())) == []


def test_very_many_jobs(service: QueueService, store: PostgresStore, clock: Clock) -> None:
    """25,000 jobs take several statements, and are there all at once, in their order."""
    jobs = [make_job(payload=number) for number in range(25_000)]
    assert service.add_jobs(job for job in jobs) == jobs
    assert service.get_status().num_jobs == 25_000
    page = service.list_jobs(limit=3)
    assert [job.payload for job in page] == [24_999, 24_998, 24_997]


@pytest.mark.parametrize("whose", ["ours", "caller", "autocommit"])
@pytest.mark.parametrize("bundled", [False, True])
def test_very_many_jobs_with_one_refused(
    service: QueueService,
    caller: Connection,
    db: Connection,
    whose: str,
    bundled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When one of very many jobs is there already, none of the others stays, whatever the connection."""
    monkeypatch.setattr(rows, "_MAX_JOBS_IN_STATEMENT", 10)
    bundle = make_bundle(25)
    taken = bundle.jobs[-1].id
    insert_job(db, id=taken)
    connection = {"ours": None, "caller": caller, "autocommit": db}[whose]
    add: Any = service.add_bundle if bundled else service.add_jobs
    added: Any = bundle if bundled else [make_job(id=job.id) for job in bundle.jobs]
    with pytest.raises(DuplicateJobError) as caught:
        add(added, connection=connection)
    assert caught.value.existing_id == taken
    caller.rollback()
    assert (service.get_status().num_jobs, service.get_status().num_job_bundles) == (1, 0)


def test_large_payloads_are_spread_over_statements(service: QueueService) -> None:
    """Jobs of together more than PostgreSQL takes in one value are added all the same."""
    payload = RawJSON('"' + "x" * 1_000_000 + '"')
    jobs = service.add_jobs([make_job(payload=payload) for _ in range(40)])
    assert service.get_status().num_jobs == len(jobs)


def test_large_bundle_counts_its_members(
    service: QueueService, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle whose members take several statements has them all."""
    monkeypatch.setattr(rows, "_MAX_JOBS_IN_STATEMENT", 10)
    bundle = service.add_bundle(make_bundle(25))
    assert [job.payload for job in service.get_job_bundle(bundle.id).jobs] == list(range(25))
    assert_counts_true(db)


# --- who hears of it


def test_a_transaction_can_keep_quiet(service: QueueService, caller: Connection, ear: Ear) -> None:
    """A transaction with jobqueue.notify off adds jobs without a word."""
    caller.execute("set local jobqueue.notify = 'off'")
    add_in_every_way(service, caller)
    caller.commit()
    assert events(ear) == []
    service.enqueue("t", 1, connection=caller)
    caller.commit()
    assert len(events(ear)) == 1


def test_ids_increase(service: QueueService) -> None:
    """Ids that one process makes sort in the order in which they were made."""
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    given = uuid4()
    assert service.add_job(make_job(id=given)).id == given


EVIL = (
    "create function evil.make_interval(secs float8) returns interval language sql as $$ select interval '99 years' $$"
)


def test_what_a_caller_has_made_of_its_connection(service: QueueService, queue: str) -> None:
    """A job is joined whatever the caller's connection makes of text, and wherever it looks for functions first."""
    with psycopg.connect(queue) as caller:
        caller.adapters.register_dumper(str, StrDumper)
        for statement in ("create schema evil", EVIL, "set local search_path = evil, pg_catalog"):
            caller.execute(statement.encode())
        for _ in range(3):
            service.enqueue("t", 1, delay=timedelta(seconds=10), priority=5, connection=caller)
    jobs = service.get_all_jobs_to_do()
    assert len(jobs) == 3
    assert all(job.start_at - job.created_at < timedelta(minutes=5) for job in jobs if job.start_at and job.created_at)
