"""Starting a process anew: it takes up the jobs of those that died, once, and leaves all others alone."""

import socket
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import jobqueue
import jobqueue_pg
from jobqueue import RefusedError, SchemaError, State, UnavailableError, WorkerSettings, context
from tests.fixtures.stores import assert_counts_true, counts_of, fetch_all, insert_job, make_bundle, row_of
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of, wait_for_end

NAME = "starting anew"
DEAD_FOR = timedelta(seconds=1)
HOUR = timedelta(hours=1)
SETTINGS = WorkerSettings(
    heartbeat_interval=timedelta(seconds=0.3), dead_for=DEAD_FOR, poll_interval=timedelta(seconds=30), max_rescues=2
)
WITHOUT_BEATS = WorkerSettings(heartbeat_interval=None)


@pytest.fixture(autouse=True)
def no_default_service(monkeypatch):
    monkeypatch.setattr(context, "_default", None)


@pytest.fixture
def old_server(pg_dsn):
    """A server that has been up for longer than DEAD_FOR: before that, nobody is taken for dead."""
    with psycopg.connect(pg_dsn, autocommit=True) as connection:
        up = "select pg_postmaster_start_time() < clock_timestamp() - %s * 1.1"
        wait_until(lambda: fetch_all(connection, up, DEAD_FOR) == [True])


def start_anew(conninfo, dead_for=DEAD_FOR, settings=SETTINGS, **options):
    return jobqueue_pg.init_job_queue_reset_interrupted_jobs(conninfo, dead_for=dead_for, settings=settings, **options)


def claimed(db, *, silent_for=timedelta(hours=2), lease: timedelta | None = DEAD_FOR, **columns):
    """Insert a job that a process claimed, which was heard of last *silent_for* ago; return its id."""
    heard_at = datetime.now(UTC) - silent_for
    values = {"started_at": heard_at, "worker_alive_at": heard_at, "lease": lease, **columns}
    claim_id = "00000000-0000-0000-0000-00000000000a"
    return insert_job(db, claim_id=claim_id, claimed_by="host:1:jobqueue-worker-0", **values)


def states(service, *ids):
    return [service.get_job(id).state for id in ids]


# --- what is refused


@pytest.fixture
def nowhere():
    """Conninfo of a server that is not there."""
    # Bound and not listening: the port refuses connections, and nobody else gets it.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"host=127.0.0.1 port={bound.getsockname()[1]} connect_timeout=2"


@pytest.mark.parametrize(
    ("dead_for", "settings", "words"),
    [
        (timedelta(0), SETTINGS, "longer than zero"),
        (timedelta(seconds=-1), SETTINGS, "longer than zero"),
        (timedelta(0), WITHOUT_BEATS, "longer than zero"),
        (timedelta(seconds=0.89), SETTINGS, "three times"),
        (timedelta(seconds=29), WorkerSettings(), "three times"),
    ],
)
def test_too_little_patience(nowhere, dead_for, settings, words):
    """A dead_for that would take jobs from the living is found before anything is touched: the server, for one."""
    with pytest.raises(ValueError, match=words):
        start_anew(nowhere, dead_for, settings)
    with pytest.raises(jobqueue.NotInitializedError):
        jobqueue.get_status()


@pytest.mark.parametrize(("dead_for", "settings"), [(5, SETTINGS), (None, SETTINGS), (DEAD_FOR, None)])
def test_what_is_no_duration_and_no_settings(nowhere, dead_for, settings):
    """Values of a wrong type are told of by their names."""
    with pytest.raises(TypeError, match=r"dead_for must be|settings must be"):
        start_anew(nowhere, dead_for, settings)


@pytest.mark.parametrize("dead_for", [timedelta(seconds=0.9), HOUR])
def test_enough_patience(queue, dead_for):
    """Three heartbeats are enough, and more are, too."""
    with start_anew(queue, dead_for) as service:
        assert jobqueue.current_service() is service


# --- what is taken up


def test_interrupted_jobs_are_taken_up(old_server, queue, db, workers, registry):
    """Silent jobs wait again, keep their retries and count as rescued; workers of the new service run them at once."""
    dead = claimed(db, current_retry_count=1, max_retry_count=3, run_count=4)
    registry.register_func_for_job_type("t", lambda number: number)
    with start_anew(queue) as service:
        job = service.get_job(dead)
        assert (job.state, job.started_at, job.claim_id, job.claimed_by) == (State.RETRYING, None, None, None)
        assert (job.current_retry_count, job.run_count, job.rescue_count) == (1, 4, 1)
        workers.start_on(service, registry)
        assert wait_for_end(service, dead).result == 1


def test_others_are_left_alone(old_server, queue, db):
    """What was heard of, has a longer lease, does not beat, waits or has stopped is not touched."""
    stopped = {"stopped_at": datetime.now(UTC) - HOUR}
    others = [
        claimed(db, silent_for=-HOUR),  # not silent, however long this takes
        claimed(db, lease=3 * HOUR),
        claimed(db, worker_alive_at=None),
        claimed(db, **stopped, worker_alive_at=None),
        claimed(db, **stopped, worker_alive_at=None, error_msg="no luck"),
        insert_job(db),
        insert_job(db, start_at=datetime.now(UTC) + HOUR),
    ]
    before = [row_of(db, id) for id in others]
    with start_anew(queue):
        assert [row_of(db, id) for id in others] == before


def test_bundles_keep_their_counts(old_server, queue, db, workers):
    """A member that is taken up again had not been counted, and is not now; others stay counted."""
    adding = workers.service(poll_only=True)
    bundle = adding.add_bundle(make_bundle(3, origin="o"))
    first, second, _ = adding.claim("t", 3)
    first.finish()
    db.execute(
        "update worker.job set worker_alive_at = now() - interval '2 hours', lease = interval '1 second' where id = %s",
        [second.job.id],
    )
    with start_anew(queue) as service:
        assert states(service, first.job.id, second.job.id) == [State.SUCCEEDED, State.AVAILABLE]
        assert counts_of(db, bundle.id) == (3, 1, False)
        assert_counts_true(db)


def test_rescued_too_often(old_server, queue, db, caplog):
    """A job that was taken up max_rescues times before is failed, with the evidence; the log says how many of each."""
    caplog.set_level("INFO")
    poison, dead = claimed(db, rescue_count=2), claimed(db, rescue_count=1)
    with start_anew(queue) as service:
        assert states(service, poison, dead) == [State.FAILED, State.AVAILABLE]
        assert "fell silent" in service.get_job(poison).error_msg
    assert "failed 1 interrupted jobs" in caplog.text
    assert "took up 1 interrupted jobs" in caplog.text


def test_without_heartbeats_any_patience_will_do(old_server, queue, db):
    """With heartbeats off any positive time is accepted; the leases of others hold all the same."""
    dead, alive = claimed(db), claimed(db, silent_for=timedelta(seconds=5), lease=HOUR)
    with start_anew(queue, timedelta(microseconds=1), WITHOUT_BEATS) as service:
        assert states(service, dead, alive) == [State.AVAILABLE, State.RUNNING]


def test_silence_of_the_server(queue, db):
    """As long as the server has been up for less than dead_for, nobody could be heard, so nobody is taken for dead."""
    [up_for] = fetch_all(db, "select clock_timestamp() - pg_postmaster_start_time()")
    dead = claimed(db, silent_for=up_for + 2 * HOUR)
    with start_anew(queue, up_for + HOUR) as service:
        assert states(service, dead) == [State.RUNNING]


def test_the_living_work_on(old_server, queue, workers, registry):
    """A pool of another process, which beats, keeps its job, whatever starts meanwhile."""
    began, may_end = threading.Event(), threading.Event()

    @registry.handler("t")
    def work(number: int) -> int:
        began.set()
        may_end.wait(10)
        return number

    lease = timedelta(seconds=1.6)
    living = workers.service(heartbeat_interval=timedelta(seconds=0.3), dead_for=lease)
    workers.start_on(living, registry, 1)
    job = living.enqueue("t", 7)
    assert began.wait(10)
    for _ in range(3):
        threading.Event().wait(0.4 * lease.total_seconds())
        with start_anew(queue, lease) as service:
            assert states(service, job.id) == [State.RUNNING]
    may_end.set()
    ended = wait_for_end(living, job)
    assert (ended.result, ended.rescue_count) == (7, 0)


# --- when it fails


def left_over(before):
    return [thread.name for thread in threading.enumerate() if thread not in before]


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ("drop schema worker cascade", SchemaError),
        (
            """
            create function spoil() returns trigger language plpgsql as $$ begin raise 'spoilt'; end $$;
            create trigger spoil before update on worker.job for each row execute function spoil()
            """,
            RefusedError,
        ),
    ],
    ids=["no tables", "a row that cannot be changed"],
)
def test_nothing_is_left_of_a_failure(old_server, migrated, spoil, error):
    """When the start fails, before or in the middle of taking up, no thread and no connection is left of it."""
    before = set(threading.enumerate())
    with closing(psycopg.connect(migrated, autocommit=True)) as db:
        claimed(db)
        db.execute(spoil)
        with pytest.raises(error):
            start_anew(make_conninfo(migrated, application_name=NAME))
        assert left_over(before) == []
        wait_until(lambda: connections_of(db, NAME) == 0)
    with pytest.raises(jobqueue.NotInitializedError):
        jobqueue.get_status()


def test_the_default_service_survives_a_failure(queue, nowhere):
    """A process that has a service keeps it when it cannot start anew."""
    with jobqueue_pg.init_job_queue(queue) as service:
        with pytest.raises(UnavailableError):
            start_anew(nowhere)
        assert jobqueue.current_service() is service
