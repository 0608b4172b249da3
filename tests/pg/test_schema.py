"""The tables, their checks and their triggers: what migrations/ makes of an empty schema."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.fixtures.listening import Ear
from tests.fixtures.tables import FUTURE, MOMENT, add_bundle, add_job, insert, rows, update

Connection = psycopg.Connection[Any]


ANY_ID = ("uuid", False, "gen_random_uuid()")
TEXT = ("text", False, None)
INT = ("integer", False, None)
ZERO = ("integer", False, "0")
NOW = ("timestamp with time zone", False, "now()")
MOMENT_OR_NULL = ("timestamp with time zone", True, None)
JSON_OR_NULL = ("jsonb", True, None)
ID_OR_NULL = ("uuid", True, None)
TEXT_OR_NULL = ("text", True, None)

COLUMNS = {
    "job_bundle": {
        "id": ANY_ID,
        "type": TEXT,
        "origin": TEXT,
        "num_jobs": INT,
        "num_jobs_stopped": ZERO,
        "updated_at": NOW,
        "created_at": NOW,
        "stopped_at": MOMENT_OR_NULL,
        "on_stopped": JSON_OR_NULL,
        "delete_when_succeeded": ("boolean", False, "false"),
    },
    "job": {
        "id": ANY_ID,
        "bundle_id": ID_OR_NULL,
        "type": TEXT,
        "payload": ("jsonb", False, None),
        "priority": ("bigint", False, None),
        "origin": TEXT,
        "max_retry_count": ZERO,
        "current_retry_count": ZERO,
        "start_at": MOMENT_OR_NULL,
        "started_at": MOMENT_OR_NULL,
        "worker_alive_at": MOMENT_OR_NULL,
        "stopped_at": MOMENT_OR_NULL,
        "error_msg": TEXT_OR_NULL,
        "error_data": JSON_OR_NULL,
        "result": JSON_OR_NULL,
        "updated_at": NOW,
        "created_at": NOW,
        "claim_id": ID_OR_NULL,
        "lease": ("interval", True, None),
        "claimed_by": TEXT_OR_NULL,
        "run_count": ZERO,
        "rescue_count": ZERO,
        "attempt_errors": JSON_OR_NULL,
        "cancelled_at": MOMENT_OR_NULL,
        "progress": JSON_OR_NULL,
        "completes_bundle_id": ID_OR_NULL,
        "retry_policy": JSON_OR_NULL,
        "unique_key": TEXT_OR_NULL,
        "unique_key_spent": TEXT_OR_NULL,
        "unique_for": TEXT_OR_NULL,
        "unique_until": MOMENT_OR_NULL,
    },
}

CONSTRAINTS = {
    "job_bundle_pkey": "PRIMARY KEY (id)",
    "job_bundle_type_check": "CHECK ((length(type) > 0))",
    "job_bundle_origin_check": "CHECK ((length(origin) > 0))",
    "job_bundle_num_jobs_check": "CHECK ((num_jobs >= 0))",
    "job_bundle_check": "CHECK (((num_jobs_stopped >= 0) AND (num_jobs_stopped <= num_jobs)))",
    "job_pkey": "PRIMARY KEY (id)",
    "job_bundle_id_fkey": "FOREIGN KEY (bundle_id) REFERENCES worker.job_bundle(id) ON DELETE CASCADE",
    "job_type_check": "CHECK (((length(type) > 0) AND (length(type) <= 100)))",
    "job_origin_check": "CHECK (((length(origin) > 0) AND (length(origin) <= 100)))",
}


@pytest.fixture
def ear(migrated: str) -> Iterator[Ear]:
    with Ear(migrated) as ear:
        yield ear


# --- tables


@pytest.mark.parametrize("table", COLUMNS)
def test_columns(connection: Connection, table: str) -> None:
    """The columns of go-jobqueue come first and in its order, then ours, each with a default or nullable."""
    found = connection.execute(
        """
        select column_name::text, data_type::text, is_nullable = 'YES', column_default::text
        from information_schema.columns
        where table_schema = 'worker' and table_name = %s
        order by ordinal_position
        """,
        [table],
    ).fetchall()
    assert [(name, (kind, null, default)) for name, kind, null, default in found] == list(COLUMNS[table].items())


def test_constraints(connection: Connection) -> None:
    """Keys and checks have the names and conditions of go-jobqueue."""
    found = connection.execute(
        """
        select conname::text, pg_get_constraintdef(oid)
        from pg_constraint
        where conrelid in ('worker.job'::regclass, 'worker.job_bundle'::regclass) and contype <> 'n'
        """
    ).fetchall()
    assert dict(found) == CONSTRAINTS


@pytest.mark.parametrize("column", ["type", "origin"])
def test_lengths_are_counted_in_characters(connection: Connection, column: str) -> None:
    """A job's type and origin have 1 to 100 characters, of whatever size."""
    add_job(connection, **{column: "x"})
    add_job(connection, **{column: "ä" * 100})
    for refused in ["", "ä" * 101]:
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            add_job(connection, **{column: refused})
        assert caught.value.diag.constraint_name == f"job_{column}_check"


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"type": ""}, "job_bundle_type_check"),
        ({"origin": ""}, "job_bundle_origin_check"),
        ({"num_jobs": -1, "num_jobs_stopped": -1}, "job_bundle_"),
        ({"num_jobs": 2, "num_jobs_stopped": 3}, "job_bundle_check"),
        ({"num_jobs": 2, "num_jobs_stopped": -1}, "job_bundle_check"),
    ],
)
def test_checks_of_bundles(connection: Connection, columns: dict[str, object], constraint: str) -> None:
    """A bundle has a type and an origin, and no more stopped jobs than jobs."""
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        add_bundle(connection, **columns)
    assert (caught.value.diag.constraint_name or "").startswith(constraint)


def test_priority_has_no_default(connection: Connection) -> None:
    """A job without a priority is refused, as in go-jobqueue."""
    with pytest.raises(psycopg.errors.NotNullViolation):
        insert(connection, "job", type="t", origin="o", payload=Jsonb({}))


def test_deleting_a_bundle_deletes_its_jobs(connection: Connection) -> None:
    """Members go with their bundle; the job that its completion added stays."""
    bundle_id = add_bundle(connection)
    add_job(connection, bundle_id=bundle_id)
    completion = add_job(connection, completes_bundle_id=bundle_id)
    connection.execute("delete from worker.job_bundle")
    assert [job["id"] for job in rows(connection, "job")] == [completion]


def test_updates_are_hot(connection: Connection) -> None:
    """A beat, a finish and the count of a bundle write no index (they are HOT); a claim must."""
    with connection.transaction():
        bundle_id = add_bundle(connection)
        job_id = add_job(connection, bundle_id=bundle_id)
        update(connection, "job", job_id, started_at=MOMENT, worker_alive_at=MOMENT, claim_id=uuid4(), run_count=1)
        update(connection, "job", job_id, worker_alive_at=FUTURE, updated_at=FUTURE)
        update(connection, "job", job_id, stopped_at=FUTURE, result=Jsonb({}), worker_alive_at=None)
        update(connection, "job_bundle", bundle_id, num_jobs_stopped=1, updated_at=FUTURE)
        update(connection, "job_bundle", bundle_id, num_jobs_stopped=2, updated_at=FUTURE)
        found = connection.execute(
            """
            select relname::text, n_tup_upd, n_tup_hot_upd
            from pg_stat_xact_user_tables
            where schemaname = 'worker' and relname in ('job', 'job_bundle')
            order by relname
            """
        ).fetchall()
    assert found == [("job", 3, 2), ("job_bundle", 2, 2)]


def test_claim_index(connection: Connection) -> None:
    """The best job of a type, or of all types with a prefix, comes from the claim index without a sort."""
    connection.execute(
        """
        insert into worker.job (type, payload, priority, origin)
        select 'type-' || n % 10, '{}', n % 3, 'o' from generate_series(1, 10000) as n
        """
    )
    connection.execute("analyze worker.job")

    def plan(condition: LiteralString, tail: LiteralString) -> str:
        explain = (
            f'explain select id from worker.job where started_at is null and "type" collate "C" {condition} {tail}'
        )
        return "\n".join(line for (line,) in connection.execute(explain))

    best = plan("= 'type-1'", "order by priority desc, coalesce(start_at, created_at), id limit 1")
    assert "job_claim_idx on job" in best
    assert "Sort" not in best
    by_priority = plan("= 'type-1'", "order by priority desc limit 1")
    assert "job_claim_idx on job" in by_priority
    assert "Sort" not in by_priority
    by_prefix = plan(">= 'type-1' and \"type\" collate \"C\" < 'type-2'", 'order by "type" collate "C" limit 1')
    assert "Index Cond" in by_prefix


# --- notifications of jobs


def test_insert_notifies_once_per_statement_and_type(connection: Connection, ear: Ear) -> None:
    """A statement that adds jobs announces each type once, with the number of them, and id and origin of the first."""
    ids = sorted(uuid4() for _ in range(5))
    connection.execute(
        """
        insert into worker.job (id, type, payload, priority, origin, start_at)
        select u.id, u.type, '{}', 0, u.origin, u.start_at::timestamptz
        from unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) as u (id, type, origin, start_at)
        """,
        [
            ids[::-1],
            ["b", "a", "later", "a", "a"],
            ["o5", "o4", "o3", "o2", "o1"],
            [None, None, "2100-01-01Z", "2001-01-01Z", None],
        ],
    )
    assert sorted(ear.heard(), key=lambda heard: heard[1]["type"]) == [
        ("job_available", {"id": str(ids[0]), "type": "a", "origin": "o1", "count": 3}),
        ("job_available", {"id": str(ids[4]), "type": "b", "origin": "o5", "count": 1}),
    ]


def test_copy_notifies(connection: Connection, ear: Ear) -> None:
    """COPY is one statement, too."""
    with connection.cursor().copy("copy worker.job (type, payload, priority, origin) from stdin") as copy:
        for _ in range(100):
            copy.write_row(("t", "{}", 0, "o"))
    assert [payload["count"] for _, payload in ear.heard()] == [100]


@pytest.mark.parametrize(
    "columns", [{"start_at": FUTURE}, {"started_at": MOMENT}, {"started_at": MOMENT, "stopped_at": MOMENT}]
)
def test_insert_of_what_cannot_be_claimed_is_silent(connection: Connection, ear: Ear, columns: dict[str, Any]) -> None:
    """Nobody is told of a job that is delayed, started or stopped when it is added."""
    add_job(connection, **columns)
    assert ear.heard() == []


def test_insert_of_nothing_is_silent(connection: Connection, ear: Ear) -> None:
    """A statement that adds no row announces none."""
    connection.execute("insert into worker.job select * from worker.job")
    assert ear.heard() == []


def test_largest_names_fit(connection: Connection, ear: Ear) -> None:
    """The longest types and origins are announced whole, in characters that JSON escapes or that have four bytes."""
    job_id = add_job(connection, type="\x01" * 100, origin="😀" * 100)
    assert ear.heard() == [
        ("job_available", {"id": str(job_id), "type": "\x01" * 100, "origin": "😀" * 100, "count": 1})
    ]


@pytest.mark.parametrize(
    ("before", "after", "announced"),
    [
        ({"started_at": MOMENT}, {"started_at": None}, True),
        ({"started_at": MOMENT}, {"started_at": None, "start_at": MOMENT}, True),
        ({"started_at": MOMENT}, {"started_at": None, "start_at": FUTURE}, False),
        ({"started_at": MOMENT}, {"started_at": FUTURE}, False),
        ({"started_at": MOMENT}, {"worker_alive_at": MOMENT}, False),
        ({"start_at": FUTURE}, {"start_at": None}, False),
        ({"start_at": FUTURE}, {"started_at": None, "start_at": None}, False),
        ({}, {"started_at": MOMENT}, False),
    ],
)
def test_job_available_on_update(
    connection: Connection, ear: Ear, before: dict[str, Any], after: dict[str, Any], *, announced: bool
) -> None:
    """A job is announced when it is given back and due; not when it was free before."""
    job_id = add_job(connection, **before)
    ear.heard()
    update(connection, "job", job_id, **after)
    told = [("job_available", {"id": str(job_id), "type": "t", "origin": "o"})]
    assert ear.heard() == (told if announced else [])


@pytest.mark.parametrize(
    ("error_msg", "current", "maximum", "will_retry"),
    [
        (None, 0, 0, False),
        (None, 0, 1, False),
        ("broken", 0, 0, False),
        ("broken", 1, 1, False),
        ("broken", 0, 1, True),
    ],
)
def test_job_stopped(
    connection: Connection, ear: Ear, *, error_msg: str | None, current: int, maximum: int, will_retry: bool
) -> None:
    """A job that stops is announced once, and whether its new row has an error and a retry left."""
    job_id = add_job(connection, started_at=MOMENT, max_retry_count=maximum)
    update(connection, "job", job_id, stopped_at=MOMENT, error_msg=error_msg, current_retry_count=current)
    told = {"id": str(job_id), "type": "t", "origin": "o", "willRetry": will_retry}
    assert ear.heard() == [("job_stopped", told)]
    update(connection, "job", job_id, stopped_at=FUTURE)
    assert ear.heard() == []


def test_keys_are_in_order(connection: Connection, migrated: str) -> None:
    """Payloads are JSON objects whose keys come in the order of go-jobqueue's."""
    with closing(psycopg.connect(migrated, autocommit=True)) as listener:
        listener.execute("listen job_stopped")
        job_id = add_job(connection)
        update(connection, "job", job_id, stopped_at=MOMENT)
        (told,) = listener.notifies(timeout=5, stop_after=1)
    assert told.payload == f'{{"id" : "{job_id}", "type" : "t", "origin" : "o", "willRetry" : false}}'


def test_notifications_come_with_the_commit(connection: Connection, ear: Ear) -> None:
    """Nobody hears of a job before the transaction that added it has committed, or if it rolls back."""
    with connection.transaction():
        add_job(connection)
        assert ear.heard() == []
    assert [channel for channel, _ in ear.heard()] == ["job_available"]
    with connection.transaction(force_rollback=True):
        add_job(connection)
    assert ear.heard() == []


def test_notify_off(connection: Connection, ear: Ear) -> None:
    """A transaction can be silent; what it does to a bundle happens all the same, and the next one is heard again."""
    with connection.transaction():
        connection.execute("set local jobqueue.notify = 'off'")
        bundle_id = add_bundle(connection, num_jobs=1, on_stopped=Jsonb({"type": "done", "payload": {}}))
        job_id = add_job(connection, bundle_id=bundle_id)
        update(connection, "job", job_id, started_at=MOMENT)
        update(connection, "job", job_id, started_at=None)
        update(connection, "job", job_id, stopped_at=MOMENT)
        update(connection, "job_bundle", bundle_id, num_jobs_stopped=1)
    assert ear.heard() == []
    (bundle,) = rows(connection, "job_bundle")
    assert bundle["stopped_at"] is not None
    assert {job["type"] for job in rows(connection, "job")} == {"t", "done"}
    add_job(connection)
    assert [channel for channel, _ in ear.heard()] == ["job_available"]
