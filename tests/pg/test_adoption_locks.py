"""A take-over among others: who holds what, who waits for whom, and what happens when it is broken off."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from time import monotonic
from typing import LiteralString

import psycopg
import pytest

from jobqueue.errors import JobQueueError, LockTimeoutError
from jobqueue_pg import adoption
from jobqueue_pg.schema import migrate
from tests.fixtures.catalog import describe
from tests.fixtures.go_client import GoClient
from tests.fixtures.go_schema import create_go_schema
from tests.fixtures.tables import Connection, add_bundle, add_job
from tests.fixtures.waiting import wait_until

CHANGING = "changing the tables"
FILLING = "filling in job.worker_alive_at"
BUILDING = "building index job_claim_idx"
RUNNING = "started_at is not null and stopped_at is null and worker_alive_at is null"


class BrokenOffError(Exception):
    pass


class Follower(logging.Handler):
    """Does what a test wants before the step whose announcement begins with *step*, or before step number *number*."""

    def __init__(self, act: Callable[[], object], *, step: str = "", number: int = 1) -> None:
        super().__init__()
        self._act = act
        self._step = step
        self._left = number

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._step):
            self._left -= 1
            if self._left == 0:
                self._act()


@contextmanager
def following(follower: Follower) -> Iterator[None]:
    adoption.logger.addHandler(follower)
    try:
        yield
    finally:
        adoption.logger.removeHandler(follower)


@pytest.fixture(autouse=True)
def _everything_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jobqueue_pg.adoption")


@pytest.fixture
def db(database: str) -> Iterator[Connection]:
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def holder(database: str) -> Iterator[Connection]:
    """Who holds locks."""
    with closing(psycopg.connect(database)) as connection:
        yield connection


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "_TIMES_TO_TRY", 5)


@contextmanager
def adopting(database: str) -> "Iterator[Future[list[str]]]":
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(migrate, database, adopt=True)


def break_off() -> None:
    raise BrokenOffError


def fill(db: Connection) -> None:
    """Add rows that lack something."""
    for _ in range(3):
        add_job(db, started_at="2020-01-01")
    add_bundle(db, num_jobs=0, created_at="2020-01-01", updated_at="2020-01-02")


def lacking(db: Connection) -> int:
    return db.execute(f"select from worker.job where {RUNNING}").rowcount


# --- broken off


@pytest.mark.parametrize("version", ["0.5", "0.7"])
def test_what_was_broken_off_is_finished(database: str, db: Connection, migrated: str, version: str) -> None:
    """Whatever the step before which it ends, the same command completes it."""
    expected = describe(migrated)
    for number in range(1, 50):
        db.execute("drop schema if exists worker cascade")
        create_go_schema(database, version)
        fill(db)
        try:
            with following(Follower(break_off, number=number)):
                migrate(database, adopt=True)
        except BrokenOffError:
            assert migrate(database, adopt=True)[0] == "0001_create_queue"
        else:
            assert number > 12, "all steps have been broken off"
            break
        found = describe(database)
        assert {thing: found.get(thing) for thing in expected} == expected
        assert lacking(db) == 0
        assert db.execute("select from worker.job_bundle where stopped_at = updated_at").rowcount == 1
    else:
        pytest.fail("the take-over never ends")


def test_a_killed_index_build_is_repeated(database: str, db: Connection, holder: Connection) -> None:
    """An index that a lost connection left half-built is dropped, and built again."""
    create_go_schema(database, "0.7")
    fill(db)
    go = GoClient(holder)
    with following(Follower(lambda: go.add_job("t"), step=BUILDING)), adopting(database) as adopted:
        wait_until(lambda: invalid_indexes(db), message="the build that waits for the open transaction")
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and query like 'create index concurrently job_claim_idx%'"
        )
        with pytest.raises(JobQueueError):
            adopted.result(30)
    assert invalid_indexes(db) == ["job_claim_idx"]
    holder.rollback()
    migrate(database, adopt=True)
    assert ("index", "job_claim_idx") in describe(database)
    assert invalid_indexes(db) == []


def invalid_indexes(db: Connection) -> list[str]:
    query = "select indexrelid::regclass::text from pg_index where not indisvalid"
    return [name.rpartition(".")[2] for (name,) in db.execute(query)]


# --- busy tables


@pytest.mark.parametrize("table", ["job", "job_bundle"])
def test_tables_that_are_never_free(
    database: str, db: Connection, holder: Connection, impatient: None, table: str
) -> None:
    """Others are held up for instants while a table is wanted; who holds it is named, and nothing has changed."""
    create_go_schema(database, "0.7")
    before = describe_tables(db)
    if table == "job":
        GoClient(holder).add_job("held")
    else:
        holder.execute("select from worker.job_bundle")
    go, waits = GoClient(db), [0.0]
    with adopting(database) as adopted:
        while not adopted.done():
            began = monotonic()
            go.add_job_bundle(jobs=[{"type": "t"}])
            waits.append(monotonic() - began)
        with pytest.raises(LockTimeoutError, match=rf"do not end .*the oldest first: {holder.info.backend_pid}\b"):
            adopted.result()
    assert 0.02 < max(waits) < 5
    assert describe_tables(db) == before
    holder.rollback()
    assert migrate(database, adopt=True)[0] == "0001_create_queue"


def describe_tables(db: Connection) -> list[tuple[str, str]]:
    return [
        *db.execute("select attrelid::regclass::text, attname from pg_attribute order by 1, 2").fetchall(),
        *db.execute("select tgrelid::regclass::text, tgname from pg_trigger order by 1, 2").fetchall(),
    ]


def test_tables_that_become_free(database: str, holder: Connection) -> None:
    """A transaction that ends is waited for."""
    create_go_schema(database, "0.7")
    GoClient(holder).add_job("held")
    with following(Follower(holder.commit, step="the tables are busy", number=3)), adopting(database) as adopted:
        assert adopted.result(30)[0] == "0001_create_queue"


def test_a_vacuum_holds_up_nobody(database: str, db: Connection, holder: Connection) -> None:
    """While a vacuum is waited for, which may take long, others go on as if nothing was wanted."""
    create_go_schema(database, "0.7")
    holder.execute("lock table worker.job in share update exclusive mode")  # as a vacuum does
    go = GoClient(db)
    with adopting(database) as adopted:
        wait_until(lambda: waiting_for_locks(db), message="the wait for the vacuum")
        began = monotonic()
        for _ in range(20):
            go.add_job("t")
        assert waiting_for_locks(db) == 1
        assert monotonic() - began < 5
        holder.rollback()
        assert adopted.result(30)[0] == "0001_create_queue"


def waiting_for_locks(db: Connection) -> int:
    return db.execute(
        "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ).rowcount


# --- busy rows


def lock_a_row(holder: Connection) -> None:
    holder.execute(f"select from worker.job where {RUNNING} limit 1 for update")


def test_a_row_that_becomes_free(database: str, db: Connection, holder: Connection) -> None:
    """A row that is locked is passed over, and filled in when it is free."""
    create_go_schema(database, "0.7")
    fill(db)
    with following(Follower(lambda: lock_a_row(holder), step=FILLING)), adopting(database) as adopted:
        wait_until(lambda: lacking(db) == 1, message="the other rows")
        assert not adopted.done()
        holder.commit()
        assert adopted.result(30)[0] == "0001_create_queue"
    assert lacking(db) == 0


def test_a_row_that_is_never_free(database: str, db: Connection, holder: Connection, impatient: None) -> None:
    """When a row stays locked, the error names it; all others are filled in, and the same command goes on."""
    create_go_schema(database, "0.7")
    fill(db)
    named = pytest.raises(LockTimeoutError, match=r"1 rows that lack job\.worker_alive_at are locked .* first is ")
    with following(Follower(lambda: lock_a_row(holder), step=FILLING)), named:
        migrate(database, adopt=True)
    assert lacking(db) == 1
    holder.rollback()
    assert migrate(database, adopt=True)[0] == "0001_create_queue"
    assert lacking(db) == 0


def test_a_job_that_is_finished_meanwhile(database: str, db: Connection) -> None:
    """A job that stops between the look and the change is left as it is."""
    create_go_schema(database, "0.7")
    job_id = add_job(db, started_at="2020-01-01")
    query: LiteralString = "update worker.job set stopped_at = now() where id = %s"
    with following(Follower(lambda: db.execute(query, [job_id]), step=FILLING)):
        migrate(database, adopt=True)
    assert db.execute("select worker_alive_at from worker.job").fetchone() == (None,)
