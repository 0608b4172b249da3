"""Ten thousand jobs, added by several threads in transactions of their own, and worked off by two processes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg

import jobqueue_pg
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until

JOBS = 10_000
THREADS = 4


def test_ten_thousand_jobs(migrated, processes, connection):
    """What was committed ran exactly once, what was rolled back never existed."""
    workers = [processes.start(threads=4, batch_size=batch_size) for batch_size in (1, 64)]
    rolled_back, lock = set(), threading.Lock()

    def add(share: int) -> None:
        with psycopg.connect(migrated) as own:
            for number in range(share, JOBS, THREADS):
                job = service.enqueue("quick", number, connection=own)
                if number // THREADS % 10 == 0:
                    own.rollback()
                    with lock:
                        rolled_back.add(job.id)
                else:
                    own.commit()

    with jobqueue_pg.connect(migrated, origin="tests") as service:
        with ThreadPoolExecutor(THREADS) as executor:
            list(executor.map(add, range(THREADS)))
        left = "select count(*) from worker.job where stopped_at is null"
        wait_until(lambda: fetch_all(connection, left) == [0], 120)
    assert len(rolled_back) == JOBS // 10
    assert [worker.finish() for worker in workers] == [{"lost_claims": 0, "refused_outcomes": 0}] * 2
    rows = fetch_all(
        connection,
        "select count(*), count(*) filter (where result = payload and error_msg is null), max(run_count), "
        "max(current_retry_count), max(rescue_count) from worker.job",
    )
    assert rows == [(9 * JOBS // 10, 9 * JOBS // 10, 1, 0, 0)]
    runs = fetch_all(connection, "select count(*), count(distinct job_id), count(distinct pid) from run")
    assert runs == [(9 * JOBS // 10, 9 * JOBS // 10, 2)]
    assert not rolled_back & set(fetch_all(connection, "select job_id from run"))
    assert fetch_all(
        connection, "select count(*) from run r where not exists (select from worker.job where id = job_id)"
    ) == [0]
