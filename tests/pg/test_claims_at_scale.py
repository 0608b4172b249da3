"""What a claim costs depends on what it is to find, and not on what else waits, or is due later."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest

from jobqueue.outcomes import Outcome
from jobqueue_pg.queries.claiming import FIND_NEXT_DUE
from jobqueue_pg.store import PostgresStore
from jobqueue_pg.watermarks import Watermarks
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.fixtures.explaining import explain, pages_read
from tests.fixtures.pg import fresh_database
from tests.fixtures.stores import CLAIMANT, START

ROWS = 5_000

FILL: LiteralString = """
insert into worker.job (id, type, payload, priority, origin, start_at, created_at)
select md5(shape || n)::uuid, type, '{}', priority, 'o', start_at, '2029-01-01 00:00:00Z'
from pg_catalog.generate_series(1, %(rows)s) n, lateral (
  values
    ('a', 'common', 0, null),
    ('b', case when n %% 100 = 0 then 'rare:' || n %% 100 || n / 100 %% 2 end, 0, null),
    ('c', 'priorities', n, null),
    ('d', 'later', 5, timestamptz '2031-01-01 00:00:00Z' + n * interval '1 s'),
    ('e', 'later', n %% 4, null),
    ('f', 'priorities-later', n, timestamptz '2031-01-01 00:00:00Z' + (n * 7919 + 1234) %% %(rows)s * interval '1 s'),
    ('g', 'priorities-later', case when n <= 200 then -n end, null)
) shape(shape, type, priority, start_at)
where type is not null and priority is not null
"""


@pytest.fixture(scope="module")
def full_database(pg_dsn: str, migrated_template: str) -> Iterator[str]:
    """Conninfo of a database with 5,000 jobs of each shape."""
    with fresh_database(pg_dsn, migrated_template) as conninfo:
        with closing(psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor)) as connection:
            connection.execute(FILL, {"rows": ROWS})
            connection.execute("vacuum analyze worker.job")
        yield conninfo


@pytest.fixture
def workers(full_database: str) -> Iterator[PostgresWorkerStore]:
    """The store of a worker pool, in 2030."""
    with (
        closing(PostgresStore(full_database, now=lambda: START)) as store,
        closing(store.for_workers()) as workers,
    ):
        yield workers


RARE = [f"rare:{number}{odd}" for number in range(100) for odd in range(2)][:100]


@pytest.mark.parametrize(
    ("types", "limit", "pages"),
    [
        (["common"], 1, 200),
        (["common"], 100, 5000),
        (RARE, 1, 2000),
        (["later"], 1, 200),
        (["priorities"], 1, 200),
        (["priorities"], 100, 5000),
        (["priorities-later"], 1, 2000),
        (["priorities-later"], 100, 5000),
    ],
)
def test_pages(workers: PostgresWorkerStore, types: Sequence[str], limit: int, pages: int) -> None:
    """A claim among 30,000 jobs reads a bounded number of pages, whatever their types, priorities and times are."""
    assert pages_read(workers, Watermarks().full_look(types), limit) < pages


def test_a_batch_of_as_many_priorities(workers: PostgresWorkerStore) -> None:
    """A batch is full, and in order, when each job has a priority to itself."""
    jobs = workers.claim_jobs(["priorities"], 100, CLAIMANT)
    workers.save_outcomes([Outcome.released(job) for job in jobs])
    assert [job.priority for job in jobs] == list(range(ROWS, ROWS - 100, -1))


def test_narrow_looks_are_not_held_up_by_later_jobs(workers: PostgresWorkerStore) -> None:
    """While claims go on where the last ones ended, they do not pass over what is due later, either."""
    workers._watermarks = Watermarks(lambda: 0.0)
    jobs = workers.claim_jobs(["priorities-later"], 100, CLAIMANT)
    look = workers._watermarks.next_look(["priorities-later"])
    assert not look.is_full
    pages = pages_read(workers, look)
    workers.save_outcomes([Outcome.released(job) for job in jobs])
    assert pages < 200


def test_what_is_next_due_among_many(workers: PostgresWorkerStore) -> None:
    """When too little is due, the next moment is found among 5,000 that have a priority each."""
    trip = workers.make_trip((), ["priorities-later"], 300, CLAIMANT)
    workers.save_outcomes([Outcome.released(job) for job in trip.claimed])
    assert len(trip.claimed) == 200
    assert trip.next_due_in == timedelta(days=365)


def test_many_moments_are_looked_through_at_once(workers: PostgresWorkerStore) -> None:
    """To find the next of 5,000 moments, of which each has a priority to itself, reads a bounded number of pages."""
    nothing = {"prefixes": [], "without": [], "without_prefixes": []}
    plan = explain(workers, FIND_NEXT_DUE, {"types": ["priorities-later"], **nothing})
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 3000
