"""What lists of jobs read: about as much as they show, by the indexes that there are, whatever filters are given."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import attrs
import psycopg
import pytest
from psycopg import sql

from jobqueue import State
from jobqueue.job_filter import JobFilter
from jobqueue.models import new_id
from jobqueue_pg.database import _ready
from jobqueue_pg.queries import applications, counting, inspecting, listing
from tests.fixtures.pg import fresh_database

JOBS: Final = 20_000
WINDOW: Final = timedelta(minutes=1)

# Most have succeeded, some have failed; a few, older ones, wait.
FILL: LiteralString = """
insert into worker.job_bundle (id, type, origin, num_jobs) select md5(n::text)::uuid, 'b', 'o', 20
from generate_series(1, %(jobs)s / 20) n;
insert into worker.job (
    bundle_id, type, payload, priority, origin, start_at, started_at, stopped_at, error_msg, created_at
)
select
    md5((n / 20 + 1)::text)::uuid, 't', '{}', 0, 'o',
    case when n %% 200 = 100 then now() + interval '1 day' end,
    case when n %% 100 <> 0 then now() end,
    case when n %% 100 <> 0 then now() end,
    case when n %% 10 = 1 then 'broken' end,
    now() - n * interval '1 s'
from generate_series(1, %(jobs)s - 20) n;
"""

NOTHING: Final[dict[str, object]] = {
    **dict.fromkeys(attrs.asdict(JobFilter())),
    "archived": False,
    "after_id": None,
    "after_created_at": None,
    "limit": 10,
}
BUNDLE = "c4ca4238-a0b9-2382-0dcc-509a6f75849b"
FILTERS: Final[dict[str, tuple[dict[str, object], str]]] = {
    "the newest": ({}, "job_created_at_idx"),
    "the next page": (
        {"after_id": new_id(), "after_created_at": datetime(2020, 1, 1, tzinfo=UTC)},
        "job_created_at_idx",
    ),
    "a type": ({"type": "t"}, "job_created_at_idx"),
    "an origin": ({"origin": "o"}, "job_created_at_idx"),
    "an age": ({"older_than": timedelta(minutes=5), "newer_than": timedelta(hours=1)}, "job_created_at_idx"),
    "a text in errors": ({"error": "brok"}, "job_error_idx"),
    "a text in errors that is nowhere": ({"error": "zzz", "state": State.FAILED}, "job_error_idx"),
    "ids": ({"ids": [new_id()]}, "job_pkey"),
    "a bundle": ({"bundle_id": BUNDLE}, "job_bundle_id_idx"),
    **{state: ({"state": state}, "job_created_at_idx") for state in (State.SUCCEEDED, State.FAILED)},
    **{state: ({"state": state}, "job_claim_idx") for state in (State.AVAILABLE, State.SCHEDULED, State.RETRYING)},
}


@pytest.fixture(scope="module")
def connection(pg_dsn: str, migrated_template: str) -> Iterator["psycopg.Connection[Any]"]:
    """A session on a database with jobs of which the statistics know."""
    with (
        fresh_database(pg_dsn, migrated_template) as conninfo,
        closing(psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor)) as connection,
    ):
        connection.execute(FILL, {"jobs": JOBS})
        connection.execute("analyze")
        yield connection


def nodes_of(connection: "psycopg.Connection[Any]", statement: LiteralString, values: dict[str, object]) -> list[Any]:
    """Return the nodes of the plan that is made for *values*."""
    ready = _ready(statement, "worker")
    connection.execute(b"prepare listing as " + ready.text)
    try:
        arguments = sql.SQL(", ").join(sql.Literal({**values, "now": None}[name]) for name in ready.names)
        call = sql.SQL("({})").format(arguments) if ready.names else sql.SQL("")
        found = connection.execute(sql.SQL("explain (format json) execute listing") + call).fetchone()
    finally:
        connection.execute("deallocate listing")
    assert found is not None

    def below(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [node, *(deeper for child in node.get("Plans", []) for deeper in below(child))]

    return below(found[0][0]["Plan"])


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("statement", [listing.list_jobs, listing.find_jobs])
def test_lists_use_indexes(
    connection: "psycopg.Connection[Any]", name: str, statement: Callable[[Any], LiteralString]
) -> None:
    """Each filter is read by the index that leads to its few jobs, or else by the one that has the newest first."""
    given, index = FILTERS[name]
    values = {**NOTHING, **given}
    nodes = nodes_of(connection, statement(values), values)
    assert index in {node.get("Index Name") for node in nodes}
    assert not any("Seq Scan" in node["Node Type"] for node in nodes)


COUNTS: Final[dict[str, tuple[LiteralString, str]]] = {
    "waiting": (counting.COUNT_WAITING, "job_claim_idx"),
    "with errors": (counting.COUNT_WITH_ERRORS, "job_error_idx"),
    "newest claims": (counting.COUNT_NEWEST_CLAIMS, "job_started_at_idx"),
    "oldest due": (counting.FIND_OLDEST_DUE, "job_claim_idx"),
    "activity": (inspecting.FIND_ACTIVITY, "job_started_at_idx"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_counted_at_once_is_found_by_an_index(connection: "psycopg.Connection[Any]", name: str) -> None:
    """No count of a few jobs reads the table."""
    statement, index = COUNTS[name]
    nodes = nodes_of(connection, statement, {"most": 50, "most_in_all": 100, "window": WINDOW})
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == {index}
    assert not any("Seq Scan" in node["Node Type"] for node in nodes)


def test_counting_does_not_sort_the_jobs(connection: "psycopg.Connection[Any]") -> None:
    """Jobs are counted as they are read: what is sorted is the handful of counts."""
    nodes = nodes_of(connection, applications.COUNT_JOBS, {})
    assert "Hashed" in {node.get("Strategy") for node in nodes}
    assert all(node["Plan Rows"] < JOBS / 10 for node in nodes if "Sort" in node["Node Type"])
