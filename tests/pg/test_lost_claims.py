"""Claims that are taken away while their handlers run: who notices, what becomes of the outcome, what is told of it."""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import pytest

from jobqueue import Discard, Job, JobBundle, JobContext, JobDesc, LostClaimError, Never, Snooze, State
from jobqueue.events import Connected
from jobqueue.outcomes import Claimant
from tests.fixtures.stores import Connection, fetch_all, row_of
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import QUIET

PATIENCE = 20
DEAD_FOR = timedelta(seconds=10)
BEATING = {"heartbeat_interval": timedelta(seconds=0.2), "dead_for": DEAD_FOR, "poll_only": True}


def fail(_: object) -> object:
    raise ValueError("no luck")


OUTCOMES: dict[str, Callable[[object], object]] = {
    "finished": lambda _: {"late": True},
    "failed": fail,
    "retry": fail,
    "snoozed": lambda _: Snooze(timedelta(hours=1)),
    "discarded": lambda _: Discard("not worth it"),
}


class Run:
    """A run that goes on until it is told to end, and to what it then leads; nobody tells its pool anything."""

    def __init__(self, workers, registry, outcome: str = "finished", **settings) -> None:
        self.contexts: list[JobContext] = []
        self._may_end = threading.Event()
        self._end = OUTCOMES[outcome]
        registry.handler("t", retry=None if outcome == "retry" else Never())(self._run)
        self.service = workers.service(**{**BEATING, **settings})
        retries = 3 if outcome == "retry" else 0
        bundle = self.service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t", max_retry_count=retries)]))
        [self.job] = bundle.jobs
        self.pool = workers.start_on(self.service, registry, 1)
        [self.context] = wait_until(lambda: self.contexts)
        # The pool takes the job up no second time, and nothing else.
        self.pool.stop()

    def _run(self, ctx: JobContext, payload: int) -> object:
        self.contexts.append(ctx)
        assert self._may_end.wait(PATIENCE)
        return self._end(payload)

    @property
    def claim(self) -> Job:
        """The job as this run has claimed it."""
        return self.context.job

    def end(self) -> None:
        """Let the handler end, and the pool."""
        self._may_end.set()
        assert self.pool.finish(PATIENCE)

    def beat(self) -> None:
        """Have its claim beaten for at once."""
        self.pool._crew._hear(Connected())

    def counts(self) -> tuple[int, int]:
        health = self.service.health()
        return health["lost_claims"], health["refused_outcomes"]


@pytest.fixture
def other(workers):
    """Another process, as far as the database can tell."""
    return workers.service(application_name="other", poll_only=True, poll_interval=QUIET)


def make_silent(db: Connection, job: Job) -> None:
    """Have a claim look as if nobody had beaten for it since long ago."""
    db.execute("update worker.job set worker_alive_at = now() - interval '1 hour' where id = %s", [job.id])


def reap(other, db, job, max_rescues=3) -> None:
    def rescues() -> list[object]:
        make_silent(db, job)
        # Its worker may beat for it in between.
        return [rescue.job_id for rescue in store.reap_jobs(timedelta(seconds=0.01), max_rescues)]

    with closing(other.store.for_workers(lock_timeout=timedelta(seconds=5))) as store:
        assert wait_until(rescues, PATIENCE) == [job.id]


def reap_and_replay(other, db, job) -> None:
    reap(other, db, job, max_rescues=0)
    assert other.get_job(job.id).state is State.FAILED
    assert other.replay_job(job.id)


WAYS: dict[str, Callable[..., object]] = {
    "reaped": reap,
    "reaped too often, and replayed": reap_and_replay,
    "reset": lambda other, db, job: other.reset_job(job.id),
    "cancelled": lambda other, db, job: other.cancel_job(job.id),
    "deleted": lambda other, db, job: other.delete_job(job.id),
    "deleted by type": lambda other, db, job: other.delete_jobs_of_type("t"),
    "deleted with its bundle": lambda other, db, job: other.delete_job_bundle(job.bundle_id),
    "deleted with everything": lambda other, db, job: other.delete_all_jobs_and_bundles(),
}


def our_lines(caplog) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage().startswith("lost the claim")]


def all_rows(db: Connection) -> list[object]:
    return [fetch_all(db, "select j::text from worker.job j"), fetch_all(db, "select b::text from worker.job_bundle b")]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_each_way_to_lose_a_claim(workers, registry, other, db, way, caplog):
    """The next beat finds out; the run is told, its result changes nothing at all, one line and two counts say so."""
    run = Run(workers, registry)
    assert not run.context.is_lost
    run.context.check()
    way(other, db, run.job)
    before = all_rows(db)
    wait_until(lambda: run.context.is_lost, PATIENCE)
    assert run.context.is_cancelled
    with pytest.raises(LostClaimError):
        run.context.check()
    run.end()
    assert all_rows(db) == before
    assert run.counts() == (1, 1)
    [line] = our_lines(caplog)
    assert str(run.claim.claim_id) in line.getMessage()
    assert str(run.claim.started_at) in line.getMessage()
    assert line.job_id == str(run.job.id)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_of_a_lost_claim(workers, registry, other, db, outcome, caplog):
    """Whatever a run leads to is refused when somebody else has claimed its job; the line names both claims."""
    run = Run(workers, registry, outcome, heartbeat_interval=timedelta(seconds=10), dead_for=timedelta(seconds=30))
    other.reset_job(run.job.id)
    [present] = other.claim("t")
    with present:
        before = row_of(db, run.job.id)
        # Not before somebody else has it, so that there are two claims to tell of.
        run.beat()
        wait_until(lambda: run.context.is_lost, PATIENCE)
        run.end()
        assert row_of(db, run.job.id) == before
        assert run.counts() == (1, 1)
        [line] = our_lines(caplog)
        for claim in (run.claim, present.job):
            assert str(claim.claim_id) in line.getMessage()
            assert str(claim.started_at) in line.getMessage()
        assert present.job.claimed_by in line.getMessage()
        present.finish("theirs")
    job = other.get_job(run.job.id)
    assert (job.result, job.run_count, job.current_retry_count) == ("theirs", 1, 0)


SHOWN = {
    "reset": "nobody has claimed it now",
    "cancelled": "(cancelled)",
    "deleted": "the job is deleted",
}


@pytest.mark.parametrize("way", SHOWN)
def test_what_the_row_shows_instead(workers, registry, other, db, way, caplog):
    """Where there is no other claim, the line says what has become of the job."""
    run = Run(workers, registry)
    WAYS[way](other, db, run.job)
    run.end()
    [line] = our_lines(caplog)
    assert SHOWN[way] in line.getMessage()


def test_a_loss_that_no_beat_has_found(workers, registry, other, db, caplog):
    """Without heartbeats the refusal of the outcome is what tells of a loss, in the same words and counts."""
    run = Run(workers, registry, heartbeat_interval=None)
    other.reset_job(run.job.id)
    before = all_rows(db)
    run.end()
    assert not run.context.is_lost
    assert (all_rows(db), run.counts()) == (before, (1, 1))
    [line] = our_lines(caplog)
    assert "its outcome (finished) was refused" in line.getMessage()


def test_a_reaper_that_comes_late(workers):
    """A reaper that was frozen between its look at the clock and its work judges by that look: nobody is wronged."""
    lease = timedelta(seconds=1.5)
    service = workers.service()
    job = service.enqueue("t", 1)
    with closing(service.store.for_workers(lock_timeout=timedelta(seconds=5))) as store:

        def freeze(_: object) -> bool:
            assert not threading.Event().wait(1.1 * lease.total_seconds())
            return True

        assert store.claim_jobs(["t"], 1, Claimant(name="host:1:thread", lease=lease))
        assert store.reap_jobs(lease / 10, 3, if_counts=freeze) == []
        assert service.get_job(job.id).rescue_count == 0
        # It really was silent by the time of the work.
        assert [rescue.job_id for rescue in store.reap_jobs(lease / 10, 3)] == [job.id]


def test_two_reapers_at_once(workers, db):
    """Of two processes that reap at the same moment, one gets each job; none is rescued twice, none is left."""
    service = workers.service()
    service.add_jobs([Job.new("t", number) for number in range(200)])
    stores = [service.store.for_workers(lock_timeout=timedelta(seconds=5)) for _ in range(2)]
    claims = service.claim("t", 200)
    db.execute("update worker.job set worker_alive_at = now() - interval '1 hour'")
    ready = threading.Barrier(2)
    rescues: list[list[object]] = [[], []]

    def reap_all(number: int) -> None:
        def together(_: object) -> bool:
            ready.wait(PATIENCE)
            return True

        rescues[number] = [
            rescue.job_id for rescue in stores[number].reap_jobs(timedelta(seconds=0.01), 3, if_counts=together)
        ]

    threads = [threading.Thread(target=reap_all, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    # What both wanted at the same moment, and one passed over, waits for the next time.
    rescues.append([rescue.job_id for rescue in stores[0].reap_jobs(timedelta(seconds=0.01), 3)])
    rescued = [id for some in rescues for id in some]
    assert (len(rescued), set(rescued)) == (200, {claim.job.id for claim in claims})
    assert fetch_all(db, "select min(rescue_count), max(rescue_count), count(started_at) from worker.job") == [
        (1, 1, 0)
    ]
    for store in stores:
        store.close()
