"""Taking over up to a million jobs while processes of go-jobqueue go on adding, claiming and finishing."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from time import monotonic
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import State
from jobqueue.outcomes import Outcome
from jobqueue_pg.schema import migrate
from jobqueue_pg.store import PostgresStore
from tests.fixtures.go_client import GoClient
from tests.fixtures.go_load import GO, LIVE, GoProcess, LockWatch, digest_of_old_rows, old_rows
from tests.fixtures.go_schema import VERSIONS, OldGoClient, create_go_schema, upgrade_go_schema
from tests.fixtures.stores import claim, claim_one
from tests.fixtures.tables import Connection
from tests.fixtures.thorough import THOROUGH
from tests.fixtures.waiting import wait_until

logger = logging.getLogger(__name__)

A_MILLION = 1_000_000
JOBS = {version: A_MILLION if THOROUGH or version == VERSIONS[0] else A_MILLION // 10 for version in VERSIONS}
"""The oldest tables take the most work."""
PROCESSES = 3
PATIENCE = 60
LONGEST_WAIT = 1.0
LONGEST_HOLD = 0.8
"""More than twice as long as one lock waits for the next, as any of those who hold one may stand still for a while."""


@contextmanager
def working(conninfo: str, version: str, running: list[UUID]) -> Iterator[list[GoProcess]]:
    """Processes at work, each of which also finishes its share of what was *running* before."""
    client = OldGoClient if version == "0.5" else GoClient
    processes = [GoProcess(conninfo, client, running[number::PROCESSES]) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    try:
        wait_until(lambda: all(process.rounds > 20 for process in processes), PATIENCE, message="the first rounds")
        yield processes
        rounds = [process.rounds for process in processes]
        wait_until(
            lambda: all(process.rounds > before + 20 for process, before in zip(processes, rounds, strict=True)),
            PATIENCE,
            message="more rounds",
        )
    finally:
        for process in processes:
            process.stop()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def filled(database: str, version: str) -> str:
    """Conninfo of a database that has as many jobs as are tried, in tables of *version*."""
    create_go_schema(database, "0.5", rows=old_rows(JOBS[version]))
    upgrade_go_schema(database, version)
    return database


def test_tables_in_use(filled: str, version: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for a lock for a second, nothing that was written is lost, and all sides can go on."""
    caplog.set_level(logging.INFO, __name__)
    with closing(psycopg.connect(filled, autocommit=True)) as db:
        before = digest_of_old_rows(db)
        running = [id for (id,) in db.execute("select id from worker.job where type = 'old.Running' limit 6000")]
        watch = LockWatch(filled)
        with working(filled, version, running) as processes, watch.watching():
            rounds = sum(process.rounds for process in processes)
            began = monotonic()
            applied = migrate(filled, adopt=True)
            seconds = monotonic() - began
            rounds = sum(process.rounds for process in processes) - rounds
        slowest = max(process.slowest for process in processes)
        figures = (version, seconds, rounds, watch.longest_wait, watch.longest_hold, slowest)
        logger.info("%s: %.1f s, %s rounds meanwhile; longest wait %.3f s, hold %.3f s, call %.3f s", *figures)
        assert applied[0] == "0001_create_queue"
        assert rounds > PROCESSES
        assert watch.longest_wait < LONGEST_WAIT, watch.statement
        assert watch.longest_hold < LONGEST_HOLD
        assert digest_of_old_rows(db) == before
        assert_nothing_is_lost(db, processes)
        assert_all_is_filled_in(db)
        assert all(process.restarts >= 1 for process in processes)  # each had prepared its claim, of all columns
    assert_we_can_work(filled)
    assert_go_can_work(filled)


def assert_nothing_is_lost(db: Connection, processes: list[GoProcess]) -> None:
    """Every job is there with what was written, finished if it was finished, and bundles count as go-jobqueue did."""
    found = {
        id: (payload, stopped, error, result)
        for id, payload, stopped, error, result in db.execute(
            "select id, payload, stopped_at is not null, error_msg, result from worker.job "
            "where type = %s or type = 'old.Running'",
            [LIVE],
        )
    }
    finished = {id: result for process in processes for id, result in process.finished.items()}
    failed = {id: message for process in processes for id, message in process.failed.items()}
    added = {id: payload for process in processes for id, payload in process.added.items()}
    assert {id: found[id][0] for id in added} == added
    stopped = {id: (error, result) for id, (_, is_stopped, error, result) in found.items() if is_stopped}
    assert stopped == {id: (None, result) for id, result in finished.items()} | {
        id: (message, None) for id, message in failed.items()
    }
    bundles = [bundle_id for process in processes for bundle_id in process.bundles]
    wrong = db.execute(
        """
        select b.id
        from worker.job_bundle b join worker.job j on j.bundle_id = b.id
        where b.id = any(%s)
        group by b.id
        having (b.num_jobs, b.num_jobs_stopped) <> (count(*), count(j.stopped_at))
        """,
        [bundles],
    ).fetchall()
    assert (len(bundles) > PROCESSES, wrong) == (True, [])
    in_progress = db.execute("select from worker.job where type = %s and started_at > stopped_at", [LIVE])
    assert in_progress.rowcount == 0


def assert_all_is_filled_in(db: Connection) -> None:
    """What ran before has a heartbeat; complete bundles, and no others, have their end."""
    without = db.execute(
        "select from worker.job where type = 'old.Running' and stopped_at is null "
        "and worker_alive_at is distinct from started_at"
    )
    assert without.rowcount == 0
    wrong = db.execute(
        "select from worker.job_bundle where (stopped_at is not null) <> (num_jobs_stopped = num_jobs) "
        "or stopped_at <> updated_at"
    )
    assert wrong.rowcount == 0


def assert_we_can_work(database: str) -> None:
    """Our service adds, and our workers claim and finish, old jobs and new ones."""
    with (
        closing(jobqueue_pg.connect(database, origin="tests")) as service,
        closing(PostgresStore(database)) as store,
        closing(store.for_workers()) as workers,
    ):
        mine = service.enqueue("ours", 1)
        theirs = claim(workers, 20, ["old.Type*"])
        assert len(theirs) == 20
        outcomes = [Outcome.finished(job) for job in (claim_one(workers, ["ours"]), *theirs)]
        assert workers.save_outcomes(outcomes) == {mine.id, *(job.id for job in theirs)}
        assert service.get_job(mine.id).state is State.SUCCEEDED


def assert_go_can_work(database: str) -> None:
    """A process of 0.7 works as before."""
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        go = GoClient(connection)
        bundle_id, (job_id,) = go.add_job_bundle(jobs=[{"type": "go.After"}])
        job = go.start_next_job_or_nil(["go.After"])
        assert job is not None
        go.set_job_worker_alive(job_id)
        go.set_job_result(job_id, {"n": 1})
        bundle = go.get_job_bundle(bundle_id)
        assert bundle is not None
        assert (bundle["num_jobs_stopped"], bundle["jobs"][0]["result"]) == (1, {"n": 1})


def test_the_watch_sees_a_wait(database: str) -> None:
    """A statement that waits for a lock for longer than is allowed is seen to do so."""
    create_go_schema(database, "0.7")
    watch = LockWatch(database)
    with (
        closing(psycopg.connect(database)) as holder,
        closing(psycopg.connect(make_conninfo(database, application_name=GO), autocommit=True)) as connection,
        watch.watching(),
    ):
        holder.execute("lock table worker.job")
        with ThreadPoolExecutor(1) as thread:
            thread.submit(GoClient(connection).add_job)
            wait_until(lambda: min(watch.longest_wait, watch.longest_hold) > LONGEST_WAIT)
            holder.commit()
    assert "insert into worker.job" in watch.statement
