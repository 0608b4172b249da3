"""Who may pause, who sees it, and who goes on claiming when the table of pauses comes."""

from contextlib import closing
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from jobqueue import BackendError
from jobqueue_pg.schema import migrate
from tests.fixtures.roles import MAY_NOT
from tests.fixtures.stores import fetch_all


def test_who_may_pause(service_as, refused):
    """A manager pauses and resumes, everybody but an enqueuer sees it, and a worker backs off for all."""
    with service_as("manager") as manager, service_as("observer") as observer, service_as("worker") as worker:
        paused = manager.pause("t", timedelta(hours=1), "by a manager")
        assert observer.paused_types() == [paused]
        manager.enqueue("t", 1)
        assert worker.claim("t") == []
        assert manager.resume("t")
        with pytest.raises(BackendError, match=MAY_NOT):
            observer.pause("t")
        with pytest.raises(BackendError, match=MAY_NOT):
            observer.resume("t")
        with closing(worker.store.for_workers(lock_timeout=timedelta(seconds=1))) as rows:
            rows.back_off("t", "back-off: 429", timedelta(0))
        (found,) = observer.get_status().paused
        assert found.is_back_off
        with closing(worker.store.for_workers(lock_timeout=timedelta(seconds=1))) as rows:
            rows.end_back_off("t")
    refused("enqueuer", "select from worker.paused_type")


def test_who_claimed_before_a_migration_claims_after_it(database):
    """A role that may read jobs may read what is paused, without which it could claim nothing."""
    role = f"jobqueue_test_{uuid4().hex[:12]}"
    migrate(database, to=4)
    with closing(psycopg.connect(database, autocommit=True)) as db:
        db.execute(f"create role {role}")
        try:
            db.execute(f"grant usage on schema worker to {role}")
            db.execute(f"grant select on worker.job to {role}")
            db.execute("grant select on worker.job to public")
            migrate(database)
            for who in (role, "public"):
                assert fetch_all(db, "select has_table_privilege(%s, 'worker.paused_type', 'select')", who) == [True]
            assert fetch_all(db, "select has_table_privilege(%s, 'worker.paused_type', 'delete')", role) == [False]
        finally:
            db.execute(f"drop owned by {role}")
            db.execute(f"drop role {role}")
