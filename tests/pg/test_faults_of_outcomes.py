"""Outcomes and rows that the database refuses, cannot spell, or has locked: what happens to the others."""

import threading
from contextlib import closing
from datetime import timedelta

import psycopg
from psycopg.conninfo import make_conninfo

from jobqueue import Job, JobBundle, JobDesc, Registry, State
from tests.fixtures.shift import lines
from tests.fixtures.stores import fetch_all, insert_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

PATIENCE = 10
TO_DO = "select count(*) from worker.job where stopped_at is null"


def test_a_refused_outcome_does_not_hold_up_the_others(workers, registry, migrated, caplog):
    """One result that the database does not take fails its own job, with a message; all the others are saved."""
    workers = Workers(migrated)
    with closing(psycopg.connect(migrated, autocommit=True)) as db:
        db.execute("alter table worker.job add constraint not_13 check (result is distinct from '13')")
        together = threading.Barrier(6)

        @registry.handler("t", max_retry_count=2)
        def work(number: int) -> int:
            if number % 10 >= 4:
                together.wait(PATIENCE)
            return number

        service = workers.service(poll_only=True, batch_size=64)
        service.add_jobs([Job.new("t", number, max_retry_count=2) for number in range(40)])
        workers.start_on(service, registry, 6)
        wait_until(lambda: fetch_all(db, TO_DO) == [0])
        failed = service.get_all_jobs_with_errors()
        assert [job.payload for job in failed] == [13]
        assert "could not be stored" in failed[0].error_msg
        assert "not_13" in failed[0].error_msg
        assert (failed[0].state, failed[0].run_count, failed[0].result) == (State.FAILED, 1, None)
        assert fetch_all(db, "select count(*) from worker.job where result = payload") == [39]
        assert service.health()["refused_outcomes"] == 1
        assert service.health()["lost_claims"] == 0
        assert len(lines(caplog, "was refused")) == 1
    workers.end()


def test_a_job_that_cannot_even_be_failed(migrated, registry, caplog):
    """A job whose row takes no end at all is left to the rescue limit, and holds up no other."""
    workers = Workers(migrated)
    with closing(psycopg.connect(migrated, autocommit=True)) as db:
        db.execute("alter table worker.job add constraint endless check (type <> 'endless' or stopped_at is null)")
        registry.register_func_for_job_type("*", lambda n: n)
        service = workers.service(poll_only=True)
        endless = service.enqueue("endless", 0)
        jobs = [service.enqueue("t", number) for number in range(20)]
        pool = workers.start_on(service, registry, 3)
        assert [wait_for_end(service, job).result for job in jobs] == list(range(20))
        wait_until(lambda: lines(caplog, "cannot even be failed"))
        assert pool.finish(PATIENCE)
        assert service.get_job(endless.id).state is State.RUNNING
    workers.end()


def test_a_result_that_the_encoding_cannot_spell(workers, registry, queue):
    """A result with characters that the connection cannot carry fails its job, and no other."""
    registry.register_func_for_job_type("t", lambda n: "\N{SNOWMAN}" if n == 1 else n)
    service = workers.service()
    jobs = [service.enqueue("t", number) for number in range(3)]
    latin = Workers(make_conninfo(queue, client_encoding="latin1"))
    try:
        latin.start(registry, 1)
        ended = [wait_for_end(service, job) for job in jobs]
    finally:
        latin.end()
    assert [ended[0].result, ended[2].result] == [0, 2]
    assert ended[1].state is State.FAILED
    assert "could not be stored" in ended[1].error_msg


def test_a_locked_bundle_holds_up_nobody_else(workers, registry, db, other_db):
    """While somebody holds a bundle's row, other outcomes are saved; the bundle's follow, and its claims stay alive."""
    # A claim may be silent for two lock timeouts: a trip waits for the bundle, and a beat for the trip.
    patience = {"heartbeat_interval": timedelta(seconds=1), "dead_for": timedelta(seconds=7)}
    service = workers.service(**patience)
    registry.register_func_for_job_type("*", lambda n: n)
    other = workers.service(**patience)
    workers.start_on(other, Registry(), 1)  # its reaper would take silent claims away
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(number, type="member") for number in range(3)]))
    with other_db.transaction():
        other_db.execute("select from worker.job_bundle where id = %s for update", [bundle.id])
        workers.start_on(service, registry, 3)
        wait_until(lambda: fetch_all(db, "select count(*) from worker.job where started_at is not null") == [3])
        loose = [service.enqueue("loose", number) for number in range(20)]
        assert [wait_for_end(service, job, 15).result for job in loose] == list(range(20))
        assert not threading.Event().wait(7)
        assert fetch_all(
            db, "select count(*) from worker.job where bundle_id is not null and stopped_at is not null"
        ) == [0]
    for job in bundle.jobs:
        ended = wait_for_end(service, job, 15)
        assert (ended.result, ended.run_count, ended.rescue_count) == (job.payload, 1, 0)
    assert service.get_job_bundle(bundle.id).stopped
    assert service.health()["lost_claims"] == 0


def test_a_row_that_cannot_be_read_spoils_no_other(workers, registry, db):
    """A row that another program wrote, and that Python cannot hold, fails alone; its batch is worked off."""
    registry.register_func_for_job_type("t", lambda n: n if n < 100 else 0)
    odd = [
        insert_job(db, payload="9" * 5000),
        insert_job(db, start_at="-infinity"),
        insert_job(db, start_at="0044-03-15 12:00:00+00 BC"),
    ]
    service = workers.service(poll_only=True, batch_size=64)
    good = service.add_jobs([Job.new("t", number) for number in range(10)])
    workers.start_on(service, registry, 3)
    assert [wait_for_end(service, job).result for job in good] == list(range(10))
    assert [wait_for_end(service, job_id).state for job_id in odd] == [State.FAILED, State.SUCCEEDED, State.SUCCEEDED]
