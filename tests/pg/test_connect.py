"""Services come and go: connecting, the default service, closing, and what cannot be connected to."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import jobqueue
import jobqueue_pg
from jobqueue import ClosedError, InvalidJobError, NotInitializedError, SchemaError, UnavailableError, context
from jobqueue.queue_service import QueueService
from tests.fixtures.stores import Connection, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of

SECRET = "s3cret"
ODD_NAMES = [
    "Jobs of ours",
    'quo"ted',
    "50%",
    "%s",
    "100%(now)s",
    "semi;colon",
    "naïve",
    "select",
    "{schema}",
    "x" * 44,
]


@pytest.fixture(autouse=True)
def no_default_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_default", None)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


# --- which service is meant


def test_there_is_no_service_at_first() -> None:
    """Before a service is set, every function says how to set one."""
    with pytest.raises(NotInitializedError, match="init_job_queue"):
        jobqueue.enqueue("t", 1)
    with pytest.raises(NotInitializedError):
        jobqueue.get_status()
    with pytest.raises(NotInitializedError):
        jobqueue.close()


def test_init_job_queue_sets_the_default_service(queue: str) -> None:
    """init_job_queue makes its service the one that functions work on, in every thread."""
    service = jobqueue_pg.init_job_queue(queue)
    assert jobqueue.current_service() is service
    thread = threading.Thread(target=jobqueue.enqueue, args=("t", 1))
    thread.start()
    thread.join()
    assert jobqueue.get_status().num_jobs == 1
    jobqueue.close()


def test_close_closes_the_default_service(queue: str) -> None:
    """After close() the functions raise ClosedError, close() too, until another service is set."""
    closed = jobqueue_pg.init_job_queue(queue)
    jobqueue.close()
    for call in (jobqueue.get_status, jobqueue.close, lambda: jobqueue.enqueue("t", 1), closed.close):
        with pytest.raises(ClosedError, match="closed"):
            call()
    jobqueue_pg.init_job_queue(queue)
    assert jobqueue.get_status().is_zero
    jobqueue.close()


def test_use_service_holds_in_its_block_and_thread(queue: str, service: QueueService) -> None:
    """use_service goes before the default service, within its block, in its thread only."""
    default = jobqueue_pg.init_job_queue(queue)
    seen: list[object] = []
    with jobqueue.use_service(service) as used:
        assert used is jobqueue.current_service() is service
        thread = threading.Thread(target=lambda: seen.append(jobqueue.current_service()))
        thread.start()
        thread.join()
    assert seen == [default]
    assert jobqueue.current_service() is default
    jobqueue.close()


def test_use_service_nests_and_survives_errors(service: QueueService, queue: str) -> None:
    """The service in use before comes back when a block ends, however it ends."""
    with closing(jobqueue_pg.connect(queue)) as inner, jobqueue.use_service(service):
        with pytest.raises(ZeroDivisionError), jobqueue.use_service(inner):
            raise ZeroDivisionError
        assert jobqueue.current_service() is service
    with pytest.raises(NotInitializedError):
        jobqueue.current_service()


def test_close_closes_the_default_service_not_the_one_in_use(queue: str, service: QueueService) -> None:
    """close() within use_service ends the default service, and leaves the one in use alone."""
    jobqueue_pg.init_job_queue(queue)
    with jobqueue.use_service(service):
        jobqueue.close()
        assert jobqueue.get_status().is_zero


def test_failing_init_keeps_the_default_service(queue: str) -> None:
    """When init_job_queue fails, the default service is the one from before."""
    service = jobqueue_pg.init_job_queue(queue)
    with pytest.raises(SchemaError):
        jobqueue_pg.init_job_queue(queue, schema="elsewhere")
    assert jobqueue.current_service() is service
    jobqueue.close()


# --- several at once


def test_several_services_at_once(queue: str, migrated: str) -> None:
    """Services on several databases and schemas live side by side; closing one leaves the others open."""
    jobqueue_pg.migrate(migrated, schema="second")
    one, two, three = (
        jobqueue_pg.connect(queue),
        jobqueue_pg.connect(migrated),
        jobqueue_pg.connect(migrated, schema="second"),
    )
    for number, service in enumerate((one, two, three), start=1):
        service.add_jobs([make_job() for _ in range(number)])
    one.close()
    assert (two.get_status().num_jobs, three.get_status().num_jobs) == (2, 3)
    two.close()
    three.close()


@pytest.mark.parametrize("schema", ODD_NAMES)
def test_schema_of_any_name(database: str, schema: str) -> None:
    """A queue lives in a schema whatever its name: every statement of a service finds it."""
    jobqueue_pg.migrate(database, schema=schema)
    with closing(jobqueue_pg.connect(database, schema=schema)) as service:
        job = service.enqueue("t", {"%s": "%(x)s {schema}"})
        service.add_jobs([make_job()])
        bundle = service.add_bundle(jobqueue.JobBundle.new("b", [jobqueue.JobDesc(1, type="t")]))
        assert service.get_job(job.id).payload == {"%s": "%(x)s {schema}"}
        assert len(service.list_jobs()) == len(service.get_all_jobs_to_do()) == service.get_status().num_jobs == 3
        service.reset_job(job.id)
        workers = service.store.for_workers()
        claimant = jobqueue.outcomes.Claimant(name="x", lease=service.settings.dead_for)
        (claimed,) = workers.make_trip([], ["*"], 1, claimant).claimed
        retry = jobqueue.outcomes.Outcome.retry(claimed, jobqueue.outcomes.RunError(message="no"))
        assert workers.make_trip([retry], ["*"], 1, claimant).saved == {claimed.id}
        assert workers.touch_jobs([]) == frozenset()
        assert workers.reap_jobs(service.settings.dead_for, 3) == []
        assert workers.delete_succeeded_bundles(timedelta(0)) == 0
        workers.close()
        service.delete_job(job.id)
        service.delete_job_bundle(bundle.id)
        service.delete_all_jobs_and_bundles()
        assert service.get_status().is_zero


# --- what is refused


@pytest.mark.parametrize("pool_size", [0, -1])
def test_pool_size_is_at_least_one(queue: str, pool_size: int) -> None:
    """A service without a connection is refused at once."""
    with pytest.raises(ValueError, match="pool_size"):
        jobqueue_pg.connect(queue, pool_size=pool_size)


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgres//user:{SECRET}@host/db",
        f"host=x password={SECRET} nonsense",
        f"host=x passwort={SECRET}",
        f"postgresql://user:{SECRET}%ZZ@host/db",
        f"password='{SECRET}",
        SECRET,
    ],
)
def test_what_is_not_a_conninfo(conninfo: str) -> None:
    """What is no connection string is a ValueError, and does not tell the password that may be in it."""
    with pytest.raises(ValueError, match="not a PostgreSQL connection string") as caught:
        jobqueue_pg.connect(conninfo)
    shown = caught.value
    while shown is not None:
        assert SECRET not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def test_conninfo_for_listening_is_checked_too(queue: str) -> None:
    """A bad listen_conninfo is found when the service is made, not when somebody listens."""
    with pytest.raises(ValueError, match="connection string"):
        jobqueue_pg.connect(queue, listen_conninfo="nonsense")


def test_refused_origin_leaves_nothing_open(queue: str) -> None:
    """An origin that no job could have is refused, and no thread or connection is left of the attempt."""
    before = set(threading.enumerate())
    with pytest.raises(InvalidJobError, match="origin"):
        jobqueue_pg.connect(queue, origin="x" * 101)
    assert set(threading.enumerate()) <= before


def test_nobody_at_the_port(unused_port: int) -> None:
    """A server that is not there is an UnavailableError at once, without the password."""
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="not available") as caught:
        jobqueue_pg.connect(f"postgresql://user:{SECRET}@127.0.0.1:{unused_port}/db")
    assert time.monotonic() - began < 5
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.Error)


def test_server_that_does_not_answer(deaf_port: int) -> None:
    """A server that takes the connection and says nothing is an UnavailableError after connect_timeout."""
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        jobqueue_pg.connect(f"host=127.0.0.1 port={deaf_port} password={SECRET} connect_timeout=2 sslmode=disable")
    assert 1 < time.monotonic() - began < 10
    assert SECRET not in str(caught.value)


def test_unknown_database_and_user(queue: str) -> None:
    """A database or user that the server does not know is an UnavailableError that names it."""
    with pytest.raises(UnavailableError, match="no_such_database"):
        jobqueue_pg.connect(make_conninfo(queue, dbname="no_such_database"))


def test_schema_without_queue(database: str) -> None:
    """A schema that was not migrated is a SchemaError with the command to run."""
    with pytest.raises(SchemaError, match=r"run `jobqueue migrate --schema worker`"):
        jobqueue_pg.connect(database)


def test_schema_too_new(migrated: str) -> None:
    """A schema with a migration of a later version is a SchemaError that says to upgrade."""
    with psycopg.connect(migrated) as connection:
        connection.execute("insert into worker.migration (version, name, checksum) values (9999, '9999_later', 'x')")
    with pytest.raises(SchemaError, match=r"9999_later.*upgrade"):
        jobqueue_pg.connect(migrated)


def test_schema_of_another_program(database: str) -> None:
    """A schema with another program's tables is a SchemaError that says so, and nothing is touched."""
    with psycopg.connect(database) as connection:
        connection.execute("create schema worker create table job (id int) create table migration (id int)")
    with pytest.raises(SchemaError, match="another program"):
        jobqueue_pg.connect(database)


def test_tables_that_vanish(migrated: str) -> None:
    """When the tables are dropped under a service, its calls say what to run."""
    with closing(jobqueue_pg.connect(migrated)) as service:
        with psycopg.connect(migrated) as connection:
            connection.execute("drop schema worker cascade")
        with pytest.raises(SchemaError, match="jobqueue migrate"):
            service.get_status()


def test_user_without_rights(migrated: str) -> None:
    """A user who may not use the schema is told so."""
    with psycopg.connect(migrated, autocommit=True) as connection:
        role = sql.Identifier(f"guest_{os.getpid()}")
        connection.execute(sql.SQL("create role {} login").format(role))
        try:
            with pytest.raises(SchemaError, match="may not"):
                jobqueue_pg.connect(make_conninfo(migrated, options=f"-c role=guest_{os.getpid()}"))
        finally:
            connection.execute(sql.SQL("drop role {}").format(role))


# --- sessions


def test_database_with_another_default_isolation(migrated: str) -> None:
    """A database whose default is repeatable read does not matter: our sessions set their own."""
    with psycopg.connect(migrated, autocommit=True) as connection:
        name = sql.Identifier(conninfo_to_dict(migrated)["dbname"])
        connection.execute(
            sql.SQL("alter database {} set default_transaction_isolation = 'repeatable read'").format(name)
        )
        connection.execute(sql.SQL("alter database {} set timezone = 'Asia/Kathmandu'").format(name))
    with closing(jobqueue_pg.connect(migrated)) as service:
        job = service.enqueue("t", 1)
        workers = service.store.for_workers()
        for database in (service.store._database, workers._database):  # type: ignore[attr-defined]
            with database.pool.connection() as own:
                assert own.execute("show transaction_isolation").fetchone() == ("read committed",)
                assert own.execute("show timezone").fetchone() == ("UTC",)
        workers.close()
        assert service.get_job(job.id).created_at is not None


def test_connections_are_made_at_first_need(migrated: str) -> None:
    """A service has no connection open until it is used, and at most pool_size then."""

    def connections() -> int:
        with psycopg.connect(migrated, autocommit=True) as connection:
            row = connection.execute(
                "select count(*) from pg_stat_activity "
                "where datname = current_database() and application_name = 'jobqueue'"
            ).fetchone()
        assert row is not None
        return int(row[0])

    with closing(jobqueue_pg.connect(migrated, pool_size=2)) as service:
        # The one by which it has looked at the schema takes the server a moment to end.
        wait_until(lambda: connections() == 0)
        threads = [threading.Thread(target=service.enqueue, args=("t", number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= connections() <= 2
        assert service.get_status().num_jobs == 8


def test_application_name_can_be_chosen(queue: str, db: Connection) -> None:
    """An application_name in the conninfo is left as it is."""
    with closing(jobqueue_pg.connect(make_conninfo(queue, application_name="shop"))) as service:
        service.enqueue("t", 1)
        # The one by which it has looked at the schema takes the server a moment to end.
        wait_until(lambda: connections_of(db, "shop") == 1)


# --- by URL


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_connect_by_url(queue: str, scheme: str) -> None:
    """jobqueue.connect finds the backend by the scheme, and hands its options on."""
    parts = conninfo_to_dict(queue)
    url = f"{scheme}:///{parts.pop('dbname')}?" + "&".join(
        f"{name}={str(value).replace('%', '%25').replace('/', '%2F')}" for name, value in parts.items()
    )
    with closing(jobqueue.connect(url, origin="by-url")) as service:
        assert service.get_job(service.enqueue("t", 1).id).origin == "by-url"


@pytest.mark.parametrize("url", ["nosuch://host/db", "host=x", "", f"user:{SECRET}@host"])
def test_connect_by_unknown_url(url: str) -> None:
    """A scheme without a backend is a ValueError that names those that there are, and no password."""
    with pytest.raises(ValueError, match="postgresql://") as caught:
        jobqueue.connect(url)
    assert SECRET not in str(caught.value)
