"""What statements cost does not depend on how much lies in the table: each uses the indexes that were made for it."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from jobqueue.models import Fence, new_id
from jobqueue.outcomes import Outcome
from jobqueue_pg import rows
from jobqueue_pg.database import Database, _ready
from jobqueue_pg.queries import applications, claiming, maintaining, managing, saving, trips, uniqueness
from jobqueue_pg.store import PostgresStore
from tests.fixtures.pg import fresh_database
from tests.fixtures.stores import claim_one, insert_job, make_bundle, make_job

ROWS = 100_000

FILL: LiteralString = """
insert into worker.job_bundle (id, type, origin, num_jobs)
select md5(n::text)::uuid, 'b', 'o', 10 from generate_series(1, %(rows)s / 100) n;
insert into worker.job (
    id, bundle_id, type, payload, priority, origin, start_at, started_at, stopped_at, worker_alive_at, error_msg,
    created_at
)
select
    md5(n::text)::uuid,
    case when n %% 10 = 0 then md5((n / 100 + 1)::text)::uuid end,
    't' || n %% 20,
    '{}',
    n %% 7,
    'o' || n %% 10,
    case when n %% 4 = 0 then now() + n * interval '1 s' end,
    case when n %% 2 = 1 then now() end,
    case when n %% 2 = 1 and n %% 1000 <> 1 then now() end,
    case when n %% 1000 = 1 then now() end,
    case when n %% 100 = 1 then 'broken' end,
    now() - n * interval '1 ms'
from generate_series(1, %(rows)s - %(rows)s / 100) n;
"""


@pytest.fixture(scope="module")
def full_database(pg_dsn: str, migrated_template: str) -> Iterator[str]:
    """Conninfo of a database with 100,000 jobs in all states, of which the statistics know."""
    with fresh_database(pg_dsn, migrated_template) as conninfo:
        with closing(psycopg.ClientCursor(connection := psycopg.connect(conninfo, autocommit=True))) as cursor:
            cursor.execute(FILL, {"rows": ROWS})
            cursor.execute("analyze")
        connection.close()
        yield conninfo


JOB_ID = new_id()
FENCE = Fence(JOB_ID, datetime(2030, 1, 1, tzinfo=UTC), new_id())
SAVING = {"outcomes": "[]", "job_stopped": "job_stopped"}
CLAIM: dict[str, Any] = {
    "limit": 100,
    "claim_id": new_id(),
    "lease": timedelta(seconds=60),
    "claimed_by": "host",
    "beats": True,
}
CLAIMING = {**CLAIM, "types": ["t1", "t2"], "prefixes": ["t1"], "without": [], "without_prefixes": [None]}
CLAIMING_MORE = {**CLAIM, "runs": "[]", "gaps": "[]"}
FENCES = {"fences": rows.fences_json([FENCE])}
CHANNELS = {"claim_lost": "claim_lost", "job_available": "job_available"}
IDS = {"ids": [JOB_ID], **CHANNELS}
RESET = {**IDS, "takes_keys_back": True}
UNIQUELY = {"patience": timedelta(seconds=2), "notify": True}

STATEMENTS: dict[str, tuple[LiteralString, dict[str, Any]]] = {
    "make trip": (trips.MAKE_TRIP, {**SAVING, **CLAIMING}),
    "make trip for types": (trips.MAKE_TRIP_FOR_TYPES, {**SAVING, **CLAIMING}),
    "make watchful trip": (trips.MAKE_WATCHFUL_TRIP, {**SAVING, **CLAIMING}),
    "make narrow trip": (trips.MAKE_NARROW_TRIP, {**SAVING, **CLAIMING_MORE}),
    "claim jobs": (claiming.CLAIM_JOBS, CLAIMING),
    "claim jobs of types": (claiming.CLAIM_JOBS_OF_TYPES, CLAIMING),
    "find next due": (claiming.FIND_NEXT_DUE, CLAIMING),
    "save outcomes": (saving.SAVE_OUTCOMES, SAVING),
    "touch jobs": (maintaining.TOUCH_JOBS, FENCES),
    "add job": (applications.ADD_JOB, rows.job_parameters(make_job(), None)),
    "add jobs": (applications.ADD_JOBS, {"jobs": "[]"}),
    "add unique jobs": (uniqueness.ADD_UNIQUE_JOBS, {"jobs": "[]", "delay": None, **UNIQUELY}),
    "free keys": (uniqueness.FREE_KEYS, {**IDS, **UNIQUELY}),
    "replace payloads": (uniqueness.REPLACE_PAYLOADS, {"payloads": "[]", **UNIQUELY}),
    "add bundle": (applications.ADD_BUNDLE, {**rows.bundle_parameters(make_bundle()), "jobs": "[]"}),
    "get job": (applications.GET_JOB, {"id": JOB_ID}),
    "get jobs": (applications.GET_JOBS, IDS),
    "get bundle": (applications.GET_BUNDLE, {"id": JOB_ID}),
    "reset jobs": (managing.RESET_JOBS, RESET),
    "replay jobs": (managing.REPLAY_JOBS, RESET),
    "cancel jobs": (managing.CANCEL_JOBS, IDS),
    "reschedule job": (managing.RESCHEDULE_JOB, {"id": JOB_ID, "start_at": None, **CHANNELS}),
    "save progress": (
        managing.SAVE_PROGRESS,
        {"id": JOB_ID, "started_at": FENCE.started_at, "claim_id": FENCE.claim_id, "progress": "{}"},
    ),
    "delete jobs": (managing.DELETE_JOBS, IDS),
    "delete bundles": (managing.DELETE_BUNDLES, IDS),
}
OF_WORKERS = {
    "make trip",
    "make trip for types",
    "make watchful trip",
    "make narrow trip",
    "claim jobs",
    "claim jobs of types",
    "find next due",
    "save outcomes",
    "touch jobs",
}


def scans_of_job(node: dict[str, Any], *, through_limits: bool = True) -> list[dict[str, Any]]:
    """Return the nodes below *node* that read the table job."""
    found = [node] if node.get("Relation Name") == "job" and "Scan" in node["Node Type"] else []
    for child in node.get("Plans", []):
        if through_limits or child["Node Type"] != "Limit":
            found += scans_of_job(child, through_limits=through_limits)
    return found


def whole_reads(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes that read a whole table, or a whole index of it, unless a limit ends that."""
    return [
        scan
        for scan in scans_of_job(plan, through_limits=False)
        if "Index Cond" not in scan and "Recheck Cond" not in scan
    ]


def nodes_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return *node* and all nodes below it."""
    return [node, *(below for child in node.get("Plans", []) for below in nodes_of(child))]


def sorts_of_jobs(node: dict[str, Any], parent: str = "") -> list[dict[str, Any]]:
    """Return the sorts of as many jobs as there may be: neither of those being locked, nor of one from each list."""
    found = []
    if "Sort" in node["Node Type"] and parent != "LockRows" and scans_of_job(node, through_limits=False):
        found.append(node)
    for child in node.get("Plans", []):
        found += sorts_of_jobs(child, node["Node Type"])
    return found


def generic_plan(connection: "psycopg.Connection[Any]", database: Database, name: str) -> dict[str, Any]:
    """Return the plan of a statement that is made for all parameters alike."""
    statement, parameters = STATEMENTS[name]
    ready = _ready(statement, database.schema)
    values = {**parameters, "now": None}
    arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in ready.names)
    connection.execute("set plan_cache_mode = force_generic_plan")
    connection.execute(b"prepare probe as " + ready.text)
    row = connection.execute(sql.SQL("explain (format json) execute probe ({})").format(arguments)).fetchone()
    connection.execute("deallocate probe")
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


@pytest.mark.parametrize("name", STATEMENTS)
def test_plans(full_database: str, name: str) -> None:
    """Under a generic plan, no statement that is run often reads the whole table, or sorts its rows."""
    with closing(PostgresStore(full_database)) as store, closing(store.for_workers()) as worker_store:
        of_workers = name in OF_WORKERS
        database = worker_store._database if of_workers else store._database
        with database.pool.connection() as connection:
            plan = generic_plan(connection, database, name)
    assert whole_reads(plan) == []
    if name != "get bundle":
        assert sorts_of_jobs(plan) == []


@pytest.mark.parametrize("name", sorted(OF_WORKERS))
def test_plans_made_too_early(migrated: str, name: str) -> None:
    """A plan of the workers' that was made when the tables were empty serves them when they are full."""
    with closing(PostgresStore(migrated)) as store, closing(store.for_workers()) as worker_store:
        database = worker_store._database
        with database.pool.connection() as connection:
            plan = generic_plan(connection, database, name)
    assert whole_reads(plan) == []


def test_claims_read_the_claim_index_alone(full_database: str) -> None:
    """All that a claim looks for it finds in the claim index; only what it takes is read by id."""
    with (
        closing(PostgresStore(full_database)) as store,
        closing(store.for_workers()) as worker_store,
        worker_store._database.pool.connection() as connection,
    ):
        plan = generic_plan(connection, worker_store._database, "claim jobs")
    assert {node["Index Name"] for node in nodes_of(plan) if "Index Name" in node} == {"job_claim_idx", "job_pkey"}


def test_claims_go_on_within_the_index(full_database: str) -> None:
    """A claim that goes on somewhere begins to read the index there: it passes over nothing that lies before."""
    with (
        closing(PostgresStore(full_database)) as store,
        closing(store.for_workers()) as worker_store,
        worker_store._database.pool.connection() as connection,
    ):
        plan = generic_plan(connection, worker_store._database, "make narrow trip")
    conditions = [node.get("Index Cond", "") for node in nodes_of(plan) if node.get("Index Name") == "job_claim_idx"]
    assert len(conditions) == 3
    assert sum("(ROW(COALESCE(start_at, created_at), id) >= ROW(" in condition for condition in conditions) == 2


def test_a_claim_of_a_full_queue_touches_few_pages(full_database: str) -> None:
    """A claim behind 100,000 jobs, half of them finished and a quarter in the future, reads a few hundred buffers."""
    statement, parameters = STATEMENTS["claim jobs"]
    with closing(PostgresStore(full_database)) as store, closing(store.for_workers()) as worker_store:
        ready = _ready(statement, "worker")
        values = {**parameters, "limit": 1, "prefixes": [], "without_prefixes": [], "now": None}
        arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in ready.names)
        with worker_store._database.pool.connection() as connection, connection.transaction(force_rollback=True):
            connection.execute(b"prepare probe as " + ready.text)
            explain = sql.SQL("explain (analyze, buffers, timing off, format json) execute probe ({})").format(
                arguments
            )
            row = connection.execute(explain).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 300


def test_fenced_statements_on_the_full_table(full_database: str) -> None:
    """The statements of workers do their work on a full table, too."""
    with closing(PostgresStore(full_database)) as store, closing(store.for_workers()) as worker_store:
        with psycopg.connect(full_database, autocommit=True) as connection:
            id = insert_job(connection, type="alone")
        job = claim_one(worker_store, ["alone"])
        assert worker_store.touch_jobs([job.fence]) == {id}
        assert worker_store.save_outcomes([Outcome.finished(job)]) == {id}
        store.delete_jobs([id])
