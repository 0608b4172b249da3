"""Taking over the tables of go-jobqueue: what they become, what is refused, and what is said of them."""

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from jobqueue.errors import SchemaError
from jobqueue_pg.schema import check_schema, migrate
from tests.fixtures.catalog import describe
from tests.fixtures.go_client import GoClient
from tests.fixtures.go_schema import VERSIONS, OldGoClient, create_go_schema
from tests.fixtures.listening import Ear
from tests.fixtures.pg import fresh_database
from tests.fixtures.tables import Connection, add_bundle, add_job, rows

FIRST = "0001_create_queue"
START = datetime(2020, 1, 1, tzinfo=UTC)


def connect(conninfo: str) -> "closing[Connection]":
    return closing(psycopg.connect(conninfo, autocommit=True))


@pytest.fixture
def db(database: str) -> Iterator[Connection]:
    with connect(database) as connection:
        yield connection


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the take-over says."""
    caplog.set_level(logging.INFO, "jobqueue_pg.adoption")
    return caplog


def warnings(said: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in said.records if record.levelno >= logging.WARNING]


@pytest.fixture
def role(db: Connection, database: str) -> Iterator[str]:
    """Conninfo of `database` for a role that is no superuser, and its name is ``somebody``."""
    name = f"jobqueue_test_{uuid4().hex}"
    db.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
    yield make_conninfo(database, options=f"-c role={name}")
    db.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
    db.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


# --- what becomes of the tables


@pytest.mark.parametrize("schema", ["worker", 'my "100%s" queue'])
@pytest.mark.parametrize("version", VERSIONS)
def test_adopted_tables_are_like_new_ones(database: str, pg_dsn: str, version: str, schema: str) -> None:
    """Columns, constraints, triggers, functions, indexes, storage and the record are those of a fresh schema."""
    create_go_schema(database, version, schema=schema)
    theirs = {name for kind, name in before(database, schema) if kind == "index" and name.startswith("worker_")}
    assert migrate(database, schema=schema, adopt=True)[0] == FIRST
    with fresh_database(pg_dsn, "template1") as fresh:
        migrate(fresh, schema=schema)
        expected = describe(fresh, schema)
    found = describe(database, schema)
    assert {name for kind, name in found.keys() - expected.keys()} == theirs
    assert {thing: found.get(thing) for thing in expected} == expected
    with connect(database) as connection:
        check_schema(connection, schema)
    assert migrate(database, schema=schema) == migrate(database, schema=schema, adopt=True) == []


def before(conninfo: str, schema: str) -> list[tuple[str, str]]:
    with connect(conninfo) as connection:
        query = "select 'index', indexname::text from pg_indexes where schemaname = %s"
        return connection.execute(query, [schema]).fetchall()


def test_where_there_is_nothing_to_take_over(database: str, migrated: str) -> None:
    """In an empty schema, or one of ours, it makes no difference to ask for it."""
    applied = migrate(database, adopt=True)
    assert applied[0] == FIRST
    assert migrate(migrated, adopt=True) == []
    assert describe(database) == describe(migrated)


@pytest.mark.parametrize("client", [OldGoClient, GoClient])
def test_rows_are_kept_and_completed(database: str, db: Connection, client: type[GoClient]) -> None:
    """Rows keep what they hold; running jobs get a heartbeat of when they were started, bundles their end."""
    create_go_schema(database, "0.5" if client is OldGoClient else "0.7")
    go = client(db)
    bundle_id, (member,) = go.add_job_bundle(jobs=[{"type": "member"}])
    open_bundle, _ = go.add_job_bundle(jobs=[{"type": "never"}])
    running, failed, waiting = go.add_job("run"), go.add_job("fail", max_retry_count=1), go.add_job("wait", [1])
    for type in ("member", "run", "fail"):
        assert go.start_next_job_or_nil([type], heartbeats=False) is not None
    go.set_job_result(member, {"n": 1})
    go.set_job_error(failed, "broken", {"line": 3})
    db.execute("update worker.job set started_at = %s where id = %s", [START, running])
    jobs = {row["id"]: row for row in rows(db, "job")}
    bundles = {row["id"]: row for row in rows(db, "job_bundle")}
    migrate(database, adopt=True)
    jobs[running]["worker_alive_at"] = START
    for row in rows(db, "job"):
        expected = {"worker_alive_at": None} | jobs[row["id"]]
        assert {column: row[column] for column in expected} == expected
    stopped_at = {row["id"]: row["stopped_at"] for row in rows(db, "job_bundle")}
    assert stopped_at == {bundle_id: bundles[bundle_id]["updated_at"], open_bundle: None}
    assert waiting in jobs


def test_go_hears_what_it_heard(database: str, db: Connection) -> None:
    """Each event is announced once: the old triggers are gone, with their functions."""
    create_go_schema(database, "0.7")
    migrate(database, adopt=True)
    go = GoClient(db)
    with Ear(database) as ear:
        go.add_job_bundle(jobs=[{"type": "t"}])
        job = go.start_next_job_or_nil(["t"])
        assert job is not None
        go.set_job_result(job["id"])
        assert [channel for channel, _ in ear.heard()] == ["job_available", "job_stopped", "job_bundle_stopped"]


def test_a_function_that_is_called_elsewhere_stays(database: str, db: Connection) -> None:
    """A function of go-jobqueue goes unless a trigger of somebody else calls it."""
    create_go_schema(database, "0.7")
    db.execute("create table mine (id uuid, type text, origin text)")
    db.execute("create trigger mine after insert on mine for each row execute function worker.job_available()")
    migrate(database, adopt=True)
    functions = {name for kind, name in describe(database) if kind == "function"}
    assert functions & {"job_available", "job_stopped", "job_bundle_stopped"} == {"job_available"}
    db.execute("insert into mine values (null, 't', 'o')")


def test_a_prepared_claim_must_be_prepared_anew(database: str, db: Connection, said: pytest.LogCaptureFixture) -> None:
    """The claim that a process of go-jobqueue has prepared is refused as a whole; restarted, it goes on."""
    create_go_schema(database, "0.7")
    db.prepare_threshold = 0
    go = GoClient(db)
    go.add_job("first")
    ids = [go.add_job("t") for _ in range(2)]
    assert go.start_next_job_or_nil(["t"]) is not None
    migrate(database, adopt=True)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan must not change result type"):
        go.start_next_job_or_nil(["t"])
    with connect(database) as restarted:
        job = GoClient(restarted).start_next_job_or_nil(["t"])
    assert job is not None
    assert job["id"] == ids[1]
    assert [text for text in warnings(said) if text.startswith("restart the processes of go-jobqueue")]


# --- refusals


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            "alter table worker.job alter column priority type integer",
            "job.priority is integer not null and not bigint",
        ),
        (
            "alter table worker.job alter column priority drop not null",
            "job.priority is bigint and not bigint not null",
        ),
        ("alter table worker.job drop column result", "job.result is missing and not jsonb"),
        ("alter table worker.job add column tenant text", "column job.tenant is unknown"),
        ("alter table worker.job add column claim_id uuid", "column job.claim_id is unknown"),
        ("alter table worker.job_bundle add column stopped_at date", "column job_bundle.stopped_at is unknown"),
        ("alter table worker.job drop constraint job_type_check", "constraint job_type_check is missing"),
        ("alter table worker.job drop constraint job_bundle_id_fkey", "constraint job_bundle_id_fkey is missing"),
        (
            """
            alter table worker.job drop constraint job_origin_check,
            add constraint job_origin_check check (length(origin) > 0 and length(origin) <= 100) not valid
            """,
            "constraint job_origin_check is .* NOT VALID",
        ),
        ("drop table worker.job", 'there is no table "job"'),
        ("drop table worker.job_bundle cascade", 'there is no table "job_bundle"'),
        (
            "alter table worker.job rename to job_2; create view worker.job as select * from worker.job_2",
            '"job" is not an ordinary table',
        ),
        (
            """
            create function mine() returns trigger language plpgsql as 'begin return null; end';
            drop trigger job_stopped_trigger on worker.job;
            create trigger job_stopped_trigger after update on worker.job for each row execute function mine()
            """,
            r"trigger job_stopped_trigger calls mine\(\)",
        ),
        ("create index job_claim_idx on worker.job (origin)", "there is another job_claim_idx"),
        (
            "create function worker.notify_of_row() returns int language sql as 'select 1'",
            "there is another notify_of_row",
        ),
    ],
)
def test_look_alikes_are_refused(database: str, db: Connection, change: LiteralString, difference: str) -> None:
    """Tables that are not quite go-jobqueue's are not touched; the error names what differs."""
    create_go_schema(database, "0.7")
    db.execute(change)
    columns = db.execute("select attrelid, attname from pg_attribute where attnum > 0 order by 1, 2").fetchall()
    with pytest.raises(SchemaError, match=rf'"worker" are not those of go-jobqueue 0\.5 to 0\.7: .*{difference}'):
        migrate(database, adopt=True)
    assert db.execute("select attrelid, attname from pg_attribute where attnum > 0 order by 1, 2").fetchall() == columns


def test_all_differences_are_named(database: str, db: Connection) -> None:
    """Who has to make tables fit is told everything at once."""
    create_go_schema(database, "0.7")
    db.execute("alter table worker.job add column tenant text, drop column result")
    with pytest.raises(SchemaError, match=r"job\.result is missing .*; column job\.tenant is unknown$"):
        migrate(database, adopt=True)


def test_only_the_owner_can_take_over(database: str, db: Connection, role: str) -> None:
    """Who may read and write the tables, but does not own them, is told what to own."""
    create_go_schema(database, "0.7")
    db.execute("grant usage, create on schema worker to public")
    db.execute("grant all on all tables in schema worker to public")
    with pytest.raises(
        SchemaError, match=r'taken over by their owner alone: table "job.*" belongs to .*; function "job_'
    ):
        migrate(role, adopt=True)


def test_the_owner_needs_no_other_right(database: str, db: Connection, role: str) -> None:
    """An owner who is no superuser can take over, if it may create in the schema."""
    create_go_schema(database, "0.7")
    name = sql.Identifier(role.rpartition("role=")[2].strip("'"))
    for thing in ("table worker.job", "table worker.job_bundle", "function worker.job_available()"):
        db.execute(sql.SQL("alter {} owner to {}").format(sql.SQL(thing), name))  # type: ignore[arg-type]
    for function in ("job_stopped", "job_bundle_stopped"):
        db.execute(sql.SQL("alter function worker.{}() owner to {}").format(sql.Identifier(function), name))
    with pytest.raises(SchemaError, match=r'alone: user ".*" may not create anything in the schema'):
        migrate(role, adopt=True)
    db.execute(sql.SQL("alter schema worker owner to {}").format(name))
    assert migrate(role, adopt=True)[0] == FIRST


# --- what is said


@pytest.mark.parametrize("version", VERSIONS)
def test_old_versions_are_warned_of(database: str, said: pytest.LogCaptureFixture, version: str) -> None:
    """Where the tables are of 0.5 or 0.6, so may be the processes, which would fail."""
    create_go_schema(database, version)
    migrate(database, adopt=True)
    told = [text for text in warnings(said) if "processes older than 0.7 fail" in text]
    assert [version in text for text in told] == ([] if version == "0.7" else [True])


def test_slow_and_double_indexes_are_named(database: str, db: Connection, said: pytest.LogCaptureFixture) -> None:
    """Indexes on what finishing and beating change are named with how to drop them; all stay until that is done."""
    create_go_schema(database, "0.7")
    db.execute("create index mine on worker.job (origin) where result is not null")
    db.execute("create index also_mine on worker.job ((updated_at at time zone 'UTC'))")
    db.execute("create index of_bundles on worker.job_bundle (num_jobs_stopped)")
    db.execute("create index harmless on worker.job (start_at, started_at, origin)")
    migrate(database, adopt=True)
    told = {text.split()[1]: text.split()[3] for text in warnings(said) if text.startswith("index ")}
    assert told == {
        "mine": "result,",
        "also_mine": "updated_at,",
        "of_bundles": "num_jobs_stopped,",
        "worker_job_stopped_at_idx": "stopped_at,",
        "worker_job_bundle_id_idx": "the",
        "worker_job_bundle_type_idx": "the",
    }
    for text in warnings(said):
        if text.startswith("index "):
            db.execute(text.rpartition(": ")[2].encode())
    left = {name for kind, name in describe(database) if kind == "index" and not name.startswith("job_")}
    assert left == {
        "harmless",
        "migration_pkey",
        "paused_type_pkey",
        "schedule_pkey",
        "schedule_tick_pkey",
        "worker_job_claim_idx",
        "worker_job_start_at_idx",
        "worker_job_started_at_idx",
        "worker_job_type_idx",
    }


def test_named_indexes_are_those_that_matter(database: str, db: Connection) -> None:
    """Of go-jobqueue's indexes, the one that is named alone keeps finishing and beating from being HOT."""
    create_go_schema(database, "0.7")
    migrate(database, adopt=True)
    assert hot_updates(db) == 1  # the beat
    db.execute("drop index worker.worker_job_stopped_at_idx")
    assert hot_updates(db) == 2


def hot_updates(db: Connection) -> int:
    """Claim, beat and finish a job; return how many of these updates have written no index."""
    job_id = add_job(db)
    with db.transaction():
        earlier = hot_updates_so_far(db)
        for change in (
            "started_at = now(), worker_alive_at = now(), claim_id = gen_random_uuid(), updated_at = now()",
            "worker_alive_at = clock_timestamp(), updated_at = clock_timestamp()",
            "worker_alive_at = null, stopped_at = now(), result = '{}', run_count = 1, updated_at = now()",
        ):
            db.execute(sql.SQL("update worker.job set {} where id = %s").format(sql.SQL(change)), [job_id])
        return hot_updates_so_far(db) - earlier


def hot_updates_so_far(db: Connection) -> int:
    row = db.execute("select pg_stat_get_xact_tuples_hot_updated('worker.job'::regclass)").fetchone()
    assert row is not None
    return int(row[0])


def test_odd_rows_are_named(database: str, db: Connection, said: pytest.LogCaptureFixture) -> None:
    """Rows that go-jobqueue leaves behind, and nobody will ever complete, are counted and named."""
    create_go_schema(database, "0.7")
    stopped = add_job(db, stopped_at=START)
    miscounted = add_bundle(db, num_jobs=2, num_jobs_stopped=1)
    complete = add_bundle(db, num_jobs=1, num_jobs_stopped=1)
    late = START + timedelta(seconds=1)
    add_job(db, bundle_id=complete, started_at=START, stopped_at=late)
    migrate(database, adopt=True)
    assert named(said, "have stopped without having been started") == {stopped}
    assert named(said, "count other members than they have") == {miscounted}


def named(said: pytest.LogCaptureFixture, fault: str) -> set[UUID]:
    (text,) = [text for text in warnings(said) if fault in text]
    ids = {UUID(id) for id in text.rpartition("for instance ")[2].split(", ")}
    assert int(text.split()[0]) == len(ids)
    return ids
