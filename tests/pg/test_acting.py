"""What is done to all that a filter means, while others change the same jobs."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

import jobqueue_pg
from jobqueue.queue_service import QueueService
from jobqueue_pg import counting
from tests.fixtures.stores import Connection, fetch_all, insert_job
from tests.fixtures.waiting import wait_until

PATIENCE = 20
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
GIVEN: dict[str, dict[str, str]] = {"delete_jobs": {"state": "failed"}, "replay_jobs": {}}


@pytest.mark.parametrize("act", ["delete_jobs", "replay_jobs"])
def test_what_is_found_is_judged_again(service: QueueService, db: Connection, other_db: Connection, act: str) -> None:
    """A job that is no more what was looked for, when whoever has locked it lets it go, is left alone."""
    ended = {"started_at": "2020-01-01", "stopped_at": "2020-01-01", "error_msg": "timeout"}
    other, changed = insert_job(db, **ended), insert_job(db, **ended)
    with ThreadPoolExecutor(1) as pool:
        with other_db.transaction():
            other_db.execute(
                "update worker.job set error_msg = null, stopped_at = null, started_at = null where id = %s", [changed]
            )
            acting = pool.submit(lambda: getattr(service, act)(error="timeout", type="t", **GIVEN[act]))
            wait_until(lambda: fetch_all(db, WAITING) == [1], PATIENCE)
        assert acting.result(PATIENCE) == 1
    assert fetch_all(db, "select id from worker.job where id = %s", changed) == [changed]
    assert fetch_all(db, "select error_msg is null from worker.job where id = %s", other) in ([], [True])


def few(done: list[tuple[int, int | None]], service: QueueService, db: Connection) -> None:
    """Delete three of five jobs, one at a time, and note what is told of it."""
    for number in range(5):
        insert_job(db, type="t" if number < 3 else "u")
    assert service.delete_jobs(type="t", batch_size=1, on_progress=lambda *now: done.append(now)) == 3


def test_progress_in_a_small_table_is_exact(migrated: str, connection: Connection) -> None:
    """Where all jobs are counted in a moment it is not asked of the planner, that may never have looked at them."""
    told: list[tuple[int, int | None]] = []
    with closing(jobqueue_pg.connect(migrated)) as service:
        few(told, service, connection)
    assert told[:3] == [(1, 3), (2, 3), (3, 3)]


def test_progress_in_a_large_table(migrated: str, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has analyzed is of unknown size; and never is more done than there is, whatever is estimated."""
    monkeypatch.setattr(counting, "PAGES_TO_COUNT", 0)
    connection.execute("alter table worker.job set (autovacuum_enabled = false)")
    told: list[tuple[int, int | None]] = []
    with closing(jobqueue_pg.connect(migrated)) as service:
        few(told, service, connection)
        assert told[:3] == [(1, None), (2, None), (3, None)]
        connection.execute("analyze worker.job")
        told.clear()
        few(told, service, connection)
    assert len(told) >= 3
    assert all(about is not None and about >= done for done, about in told)
