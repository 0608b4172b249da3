"""Numbers that are had at once from a table that is too large to count: near the truth, marked, and cheap."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any, Final, LiteralString

import psycopg
import pytest

from jobqueue import State
from jobqueue_pg import counting
from jobqueue_pg.database import _ready
from jobqueue_pg.queries.counting import SAMPLE_JOBS
from jobqueue_pg.store import PostgresStore
from tests.fixtures.pg import fresh_database

JOBS: Final = 30_000

# In turns: those of one page are not all alike. A few wait, run and have failed.
FILL: LiteralString = """
insert into worker.job (type, payload, priority, origin, created_at, started_at, stopped_at, error_msg)
select
    case when n %% 3 = 0 then 'a' else 'b' end, '{}', n %% 7, 'o', now() - n * interval '1 s',
    case when n > 300 then now() - n * interval '1 s' end,
    case when n > 340 then now() end,
    case when n %% 1000 = 999 then 'broken' end
from generate_series(1, %(jobs)s) n
"""
EXACT: Final = {
    State.AVAILABLE: 300,
    State.RUNNING: 40,
    State.FAILED: 30,
}


@pytest.fixture(scope="module")
def full_database(pg_dsn: str, migrated_template: str) -> Iterator[str]:
    """Conninfo of a database with so many jobs."""
    with fresh_database(pg_dsn, migrated_template) as conninfo:
        with closing(psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor)) as connection:
            connection.execute(FILL, {"jobs": JOBS})
            connection.execute("vacuum analyze worker.job")
        yield conninfo


@pytest.fixture
def store(full_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStore]:
    """A store to which the table is large."""
    monkeypatch.setattr(counting, "PAGES_TO_COUNT", 100)
    monkeypatch.setattr(counting, "_PAGES_OF_SAMPLE", 100)
    with closing(PostgresStore(full_database)) as store:
        yield store


def test_a_large_table(store: PostgresStore) -> None:
    """What has succeeded is estimated, within a tenth; what is few is exact, and so is what was claimed last."""
    counts = store.counting.count_jobs()
    # There are more claims than are looked at.
    assert counts.estimated_states == {State.SUCCEEDED, State.RUNNING}
    assert counts.is_estimate
    assert {state: counts.by_state[state] for state in EXACT} == EXACT
    true = store.get_status().by_type_and_state
    for job_type in ("a", "b"):
        number = true[job_type][State.SUCCEEDED]
        assert counts.by_type_and_state[job_type][State.SUCCEEDED] == pytest.approx(number, rel=0.1)
    assert counts.num_jobs == pytest.approx(JOBS, rel=0.1)


def test_what_is_more_than_can_be_counted(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a limit cuts a count short, its states are marked, and there are as many as were counted at least."""
    monkeypatch.setattr(counting, "_MOST", {"most": 20, "most_in_all": 25})
    counts = store.counting.count_jobs()
    assert counts.estimated_states == set(State)
    assert counts.by_state[State.AVAILABLE] >= 25
    assert counts.by_state[State.FAILED] >= 25


@pytest.mark.parametrize(("most", "is_known"), [(101, False), (201, True)])
def test_a_type_with_too_many(store: PostgresStore, monkeypatch: pytest.MonkeyPatch, most: int, is_known: bool) -> None:
    """Of types that wait it is enough that one has more than are counted: here 200 of b, and 100 of a."""
    monkeypatch.setattr(counting, "_MOST", {"most": most, "most_in_all": 10_000})
    counts = store.counting.count_jobs()
    assert (State.AVAILABLE not in counts.estimated_states) is is_known
    assert counts.by_type_and_state["a"][State.AVAILABLE] >= 100


def test_a_table_without_statistics(store: PostgresStore, full_database: str) -> None:
    """Before the first vacuum, or analyze, the share of pages that was read tells how many there are."""
    with closing(psycopg.connect(full_database, autocommit=True)) as connection:
        connection.execute("update pg_class set reltuples = -1, relpages = 0 where oid = 'worker.job'::regclass")
        try:
            assert store.counting.count_jobs().num_jobs == pytest.approx(JOBS, rel=0.5)
        finally:
            connection.execute("vacuum analyze worker.job")


def test_a_sample_reads_what_it_says(store: PostgresStore, full_database: str) -> None:
    """A sample of a hundred pages, on average, reads about as many, of the thousand that there are."""
    ready = _ready(SAMPLE_JOBS, "worker")
    with closing(psycopg.connect(full_database, autocommit=True)) as connection:
        [[pages]] = connection.execute("select pg_relation_size('worker.job') / 8192").fetchall()
        assert pages > 800
        values: dict[str, Any] = {"now": None, "percent": 100 * 100 / pages}
        explain = b"explain (analyze, buffers, format json) " + ready.text
        cursor = psycopg.RawCursor(connection)
        [[plan]] = cursor.execute(explain, [values[name] for name in ready.names]).fetchall()
    read = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    assert 40 < read < 200


def test_how_long_due_among_many_priorities(store: PostgresStore) -> None:
    """The first of each priority is looked at, and none of the others."""
    ages = store.counting.oldest_due_age()
    assert ages.keys() == {"a", "b"}
    assert all(timedelta(seconds=290) < age < timedelta(hours=1) for age in ages.values())
