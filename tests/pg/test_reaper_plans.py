"""What the statements of maintenance read: the rows that they are about, and none of the others that have ended."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from jobqueue.models import new_id
from jobqueue.retention import Retention
from jobqueue_pg.database import _ready
from jobqueue_pg.pool import _WORKER_SETTINGS
from jobqueue_pg.queries import cleaning, maintaining, removing
from jobqueue_pg.retention import rules_json
from tests.fixtures.pg import fresh_database

JOBS: Final = 20_000
NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)

# One claim a second, all of one bundle; each thousandth is still open. The other bundle is to be deleted.
FILL: LiteralString = """
with bundle as (
    insert into worker.job_bundle (id, type, origin, num_jobs, num_jobs_stopped, stopped_at, delete_when_succeeded)
    values
        ('10000000-0000-0000-0000-000000000000', 'b', 'o', %(jobs)s, 0, null, false),
        ('f0000000-0000-0000-0000-000000000000', 'b', 'o', 0, 0, %(now)s - interval '1 hour', true)
)
insert into worker.job (id, bundle_id, type, payload, priority, origin, started_at, worker_alive_at, stopped_at)
select
    md5(n::text)::uuid, '10000000-0000-0000-0000-000000000000', 't', '{}', 0, 'o', m.moment,
    case when n %% 1000 = 0 then m.moment end,
    case when n %% 1000 <> 0 then m.moment end
from generate_series(1, %(jobs)s) n, lateral (select %(now)s - n * interval '1 s' as moment) m
"""

IDS: Final = [new_id() for _ in range(3)]
DEAD_FOR: Final = timedelta(seconds=60)
LOOK: Final = {
    "ids": IDS,
    "since": NOW - 2 * DEAD_FOR,
    "dead_for": DEAD_FOR,
    "longest_step": timedelta(minutes=1),
    "in_doubt_after": 2 / 3,
    "kept_for": timedelta(seconds=2),
}
OLD: Final = {
    "ids": [*IDS, UUID("f0000000-0000-0000-0000-000000000000")],
    "rules": rules_json(Retention(succeeded=timedelta(0), by_type={"a:*": {"failed": DEAD_FOR}})),
    "youngest": DEAD_FOR,
    "kept_empty": DEAD_FOR,
}
OLD_JOBS: Final = {**OLD, "after": "-infinity", "after_id": UUID(int=0), "number": 100, "behind": DEAD_FOR}
SAVED: Final = {
    "outcomes": json.dumps(
        [{"id": str(id), "started_at": str(NOW), "claim_id": str(IDS[0]), "kind": "finished"} for id in IDS]
    ),
    "rules": OLD["rules"],
    "job_stopped": "job_stopped",
}
STATEMENTS: Final[dict[str, tuple[LiteralString, dict[str, Any]]]] = {
    "look around": (maintaining.LOOK_AROUND, LOOK),
    "look around for the first time": (maintaining.LOOK_AROUND, {**LOOK, "since": None}),
    "sweep claims at the top": (maintaining.SWEEP_CLAIMS, {"below": "infinity", "number": 100}),
    "sweep claims below": (maintaining.SWEEP_CLAIMS, {"below": str(NOW - timedelta(hours=5)), "number": 100}),
    "delete succeeded bundles": (maintaining.DELETE_SUCCEEDED_BUNDLES, {"kept_for": timedelta(seconds=2)}),
    "find old jobs": (cleaning.FIND_OLD_JOBS, OLD_JOBS),
    "find old jobs further on": (cleaning.FIND_OLD_JOBS, {**OLD_JOBS, "after": "2020-01-01", "after_id": IDS[0]}),
    "delete old jobs": (cleaning.DELETE_OLD_JOBS, OLD),
    "archive old jobs": (cleaning.ARCHIVE_OLD_JOBS, OLD),
    "find old bundles": (cleaning.FIND_OLD_BUNDLES, {**OLD, "after_id": UUID(int=0), "number": 100}),
    "delete old bundles": (cleaning.DELETE_OLD_BUNDLES, OLD),
    "archive old bundles": (cleaning.ARCHIVE_OLD_BUNDLES, OLD),
    "save outcomes and delete": (removing.SAVE_OUTCOMES_AND_DELETE, SAVED),
    "save outcomes and archive": (removing.SAVE_OUTCOMES_AND_ARCHIVE, SAVED),
    "reap jobs": (maintaining.REAP_JOBS, {"ids": IDS, "judged_at": NOW, "dead_for": DEAD_FOR, "max_rescues": 3}),
}


@pytest.fixture(scope="module", params=[True, False], ids=["analyzed", "planned while it was empty"])
def connection(
    request: pytest.FixtureRequest, pg_dsn: str, migrated_template: str
) -> Iterator["psycopg.Connection[Any]"]:
    """A session as those of workers are, whose plans were made when the table was as it is, or before it was filled."""
    with (
        fresh_database(pg_dsn, migrated_template) as conninfo,
        closing(psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor)) as connection,
    ):
        connection.execute("alter table worker.job set (autovacuum_enabled = false)")
        for name, value in _WORKER_SETTINGS.items():
            connection.execute("select set_config(%s, %s, false)", [name, value])
        if not request.param:
            for name in STATEMENTS:
                plan(connection, name)
        connection.execute(FILL, {"jobs": JOBS, "now": NOW})
        if request.param:
            connection.execute("analyze worker.job")
        yield connection


def plan(connection: "psycopg.Connection[Any]", name: str) -> dict[str, Any]:
    """Run a statement by the plan that is made for all parameters alike; return the plan, with what it has read."""
    statement, parameters = STATEMENTS[name]
    ready = _ready(statement, "worker")
    values = {**parameters, "now": NOW}
    prepared = sql.Identifier(name)
    if not connection.execute("select from pg_prepared_statements where name = %s", [name]).rowcount:
        connection.execute(sql.SQL("prepare {} as ").format(prepared).as_bytes(None) + ready.text)
    arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in ready.names)
    explain = sql.SQL("explain (analyze, format json) execute {}({})").format(prepared, arguments)
    found = connection.execute(explain).fetchone()
    assert found is not None
    whole: dict[str, Any] = found[0][0]["Plan"]
    return whole


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(below for child in node.get("Plans", []) for below in nodes(child))]


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_look_reads_claims_by_an_index(connection: "psycopg.Connection[Any]", name: str) -> None:
    """No look reads the table: each row that is touched is of a claim that was asked for, by its id or its time."""
    scans = [node for node in nodes(plan(connection, name)) if "Scan" in node["Node Type"] and "Relation Name" in node]
    assert {scan["Node Type"] for scan in scans} <= {"Index Scan", "Index Only Scan"}
    # There is an index of those bundles alone.
    assert all("Index Cond" in scan or scan["Index Name"] == "job_bundle_delete_idx" for scan in scans)
    read = [scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) for scan in scans]
    assert max(read) <= 100
