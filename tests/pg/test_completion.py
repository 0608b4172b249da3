"""When a bundle is complete, and what follows from it: the triggers on job_bundle."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.fixtures.listening import Ear
from tests.fixtures.tables import FUTURE, MOMENT, add_bundle, rows, update

Connection = psycopg.Connection[Any]

OF_JOBS = {"add_on_stopped_job", "free_unique_key"}
"""Functions that write jobs."""


@pytest.fixture
def ear(migrated: str) -> Iterator[Ear]:
    with Ear(migrated) as ear:
        yield ear


def test_bundle_stopped(connection: Connection, ear: Ear) -> None:
    """A bundle is complete when the last job is counted: that is announced, and kept by the clock of the statement."""
    bundle_id = add_bundle(connection)
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=1, updated_at=MOMENT)
    assert rows(connection, "job_bundle")[0]["stopped_at"] is None
    assert ear.heard() == []
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=2, updated_at=MOMENT)
    assert rows(connection, "job_bundle")[0]["stopped_at"] == MOMENT
    assert ear.heard() == [("job_bundle_stopped", {"id": str(bundle_id), "type": "b", "origin": "o"})]


def test_a_complete_bundle_is_not_completed_again(connection: Connection, ear: Ear) -> None:
    """Neither a touch of a complete bundle nor the deletion of one of its stopped members is a completion."""
    bundle_id = add_bundle(connection, on_stopped=Jsonb({"type": "done", "payload": {}}))
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=2, updated_at=MOMENT)
    ear.heard()
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=2, updated_at=FUTURE)
    update(connection, "job_bundle", bundle_id, num_jobs=1, num_jobs_stopped=1, updated_at=FUTURE)
    assert ear.heard() == []
    assert rows(connection, "job_bundle")[0]["stopped_at"] == MOMENT
    assert len(rows(connection, "job")) == 1


def test_bundle_stopped_again_after_a_reset(connection: Connection, ear: Ear) -> None:
    """A reset of a member takes the completion back; the next one counts, is announced, and adds its job, too."""
    bundle_id = add_bundle(connection, on_stopped=Jsonb({"type": "done", "payload": {}}))
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=2)
    ear.heard()
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=1)
    assert rows(connection, "job_bundle")[0]["stopped_at"] is None
    assert ear.heard() == []
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=2, updated_at=MOMENT)
    assert rows(connection, "job_bundle")[0]["stopped_at"] == MOMENT
    assert sorted(channel for channel, _ in ear.heard()) == ["job_available", "job_bundle_stopped"]
    assert len(rows(connection, "job")) == 2


def test_a_deletion_can_complete_a_bundle(connection: Connection, ear: Ear) -> None:
    """A bundle whose last running member is taken out of the counts is complete."""
    bundle_id = add_bundle(connection, num_jobs_stopped=1)
    update(connection, "job_bundle", bundle_id, num_jobs=1, updated_at=MOMENT)
    assert rows(connection, "job_bundle")[0]["stopped_at"] == MOMENT
    assert [channel for channel, _ in ear.heard()] == ["job_bundle_stopped"]


def test_an_empty_bundle_is_never_complete(connection: Connection, ear: Ear) -> None:
    """A bundle that is added without jobs stays as it is."""
    bundle_id = add_bundle(connection, num_jobs=0)
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=0, updated_at=FUTURE)
    assert rows(connection, "job_bundle")[0]["stopped_at"] is None
    assert ear.heard() == []


def test_long_names_cannot_stop_a_completion(connection: Connection, ear: Ear) -> None:
    """A bundle whose type and origin are longer than a notification can be completes, under shortened names."""
    name = "\x01" * 10_000
    bundle_id = add_bundle(connection, type=name, origin=name, on_stopped=Jsonb({"type": "done", "payload": {}}))
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=2)
    told = dict(ear.heard())
    assert told["job_bundle_stopped"] == {"id": str(bundle_id), "type": name[:100], "origin": name[:100]}
    assert [job["origin"] for job in rows(connection, "job")] == [name[:100]]


def test_on_stopped_adds_a_job(connection: Connection, ear: Ear) -> None:
    """The transaction that completes a bundle adds the job that the bundle describes, and announces it."""
    described = {
        "type": "done",
        "payload": {"to": ["you"]},
        "origin": "elsewhere",
        "priority": -7,
        "maxRetryCount": 3,
        "startAt": "2001-02-03T05:05:06+01:00",
    }
    bundle_id = add_bundle(connection, on_stopped=Jsonb(described))
    with connection.transaction(force_rollback=True):
        update(connection, "job_bundle", bundle_id, num_jobs_stopped=2)
    assert rows(connection, "job") == []
    update(connection, "job_bundle", bundle_id, num_jobs_stopped=2, updated_at=MOMENT)
    (job,) = rows(connection, "job")
    expected = {
        "bundle_id": None,
        "completes_bundle_id": bundle_id,
        "type": "done",
        "payload": {"to": ["you"]},
        "origin": "elsewhere",
        "priority": -7,
        "max_retry_count": 3,
        "start_at": MOMENT,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "started_at": None,
    }
    assert {column: job[column] for column in expected} == expected
    assert dict(ear.heard())["job_available"] == {
        "id": str(job["id"]),
        "type": "done",
        "origin": "elsewhere",
        "count": 1,
    }


def test_on_stopped_has_defaults(connection: Connection) -> None:
    """A description needs no more than a type and a payload: the origin is the bundle's, the job is due at once."""
    described = {"type": "done", "payload": 1, "origin": None, "priority": None, "maxRetryCount": None, "startAt": None}
    for on_stopped in [described, {"type": "done", "payload": 1}]:
        update(connection, "job_bundle", add_bundle(connection, on_stopped=Jsonb(on_stopped)), num_jobs_stopped=2)
    for job in rows(connection, "job"):
        assert (job["origin"], job["priority"], job["max_retry_count"], job["start_at"]) == ("o", 0, 0, None)


@pytest.mark.parametrize(
    "on_stopped",
    [
        {},
        [],
        "text",
        None,
        {"type": "done"},
        {"payload": {}},
        {"type": "", "payload": {}},
        {"type": "x" * 101, "payload": {}},
        {"type": "done", "payload": {}, "origin": ""},
        {"type": "done", "payload": {}, "origin": "x" * 101},
        {"type": "done", "payload": {}, "priority": "high"},
        {"type": "done", "payload": {}, "maxRetryCount": 2**31},
        {"type": "done", "payload": {}, "startAt": "soon"},
    ],
)
def test_on_stopped_is_checked_beforehand(connection: Connection, on_stopped: object) -> None:
    """A description of which no job can be made is refused with its bundle, not at its completion."""
    with pytest.raises((psycopg.errors.IntegrityError, psycopg.errors.DataError)):
        add_bundle(connection, on_stopped=Jsonb(on_stopped))
    bundle_id = add_bundle(connection)
    with pytest.raises((psycopg.errors.IntegrityError, psycopg.errors.DataError)):
        update(connection, "job_bundle", bundle_id, on_stopped=Jsonb(on_stopped))


def test_triggers_look_at_their_own_schema(connection: Connection) -> None:
    """Neither temporary tables nor functions of the same names in a session's search_path come between."""
    connection.execute("create temporary table job (like worker.job including all)")
    connection.execute("create schema trap")
    connection.execute(
        """
        create function trap.json_build_object(text, uuid, text, text, text, text) returns json
            language plpgsql as 'begin raise exception ''trapped''; end'
        """
    )
    connection.execute("set search_path = pg_temp, trap, public, pg_catalog")
    update(
        connection,
        "job_bundle",
        add_bundle(connection, on_stopped=Jsonb({"type": "done", "payload": {}})),
        num_jobs_stopped=2,
    )
    assert [job["type"] for job in rows(connection, "job")] == ["done"]


def test_functions_have_a_search_path_of_their_own(connection: Connection) -> None:
    """Every function pins its search_path, the system's functions first and temporary objects last."""
    found = connection.execute(
        """
        select proname::text, coalesce(proconfig, '{}'), prosecdef
        from pg_proc
        where pronamespace = 'worker'::regnamespace
        """
    ).fetchall()
    assert {name for name, _, _ in found} == {
        "notify_jobs_added",
        "notify_of_row",
        "notify_job_stopped",
        "mark_job_bundle_stopped",
        "check_on_stopped",
        "add_on_stopped_job",
        "free_unique_key",
        "notify_schedule_changed",
    }
    for name, settings, definer in found:
        path = "pg_catalog, worker, pg_temp" if name in OF_JOBS else "pg_catalog, pg_temp"
        assert settings == [f"search_path={path}"]
        assert not definer
