"""The reaper frees the jobs of claims that fell silent."""

from datetime import datetime, timedelta

from jobqueue import JobDesc, State
from jobqueue.outcomes import Claimant, Outcome, Rescue
from jobqueue.store import Round
from tests.conformance.acts import DEAD_FOR, ERROR, HOUR, MORTAL, SECOND
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_job
from tests.fixtures.waiting import wait_until

PATIENCE = 30


def reap(backend: Backend, max_rescues: int = 3) -> list[Rescue]:
    return backend.worker_store.reap_jobs(DEAD_FOR, max_rescues)


def test_reap(backend: Backend) -> None:
    """A claim that was silent for long enough is freed: the job is as before, but for its count of rescues."""
    backend.add(make_job(max_retry_count=3, start_at=START - SECOND))
    backend.save(Outcome.retry(backend.claim_one(), ERROR, delay=timedelta(0)))
    waiting = backend.shown(backend.claim_one(claimant=MORTAL))
    now = backend.clock.advance(SECOND)
    (rescue,) = reap(backend)
    job_id = waiting["id"]
    assert rescue == Rescue(job_id=job_id, job_type="t", claimed_by="dead:1:t", rescue_count=1, failed=False)
    unclaimed = {"started_at": None, "claim_id": None, "claimed_by": None, "worker_alive_at": None}
    (job,) = backend.store.get_jobs([job_id])
    assert backend.shown(job) == {**waiting, **unclaimed, "updated_at": now, "rescue_count": 1}
    assert (job.current_retry_count, job.run_count) == (1, 1)


def test_a_reaped_job_can_be_claimed(backend: Backend) -> None:
    """A job that was freed runs again; who had it before can do nothing any more."""
    backend.add(make_job())
    dead = backend.claim_one(claimant=MORTAL)
    backend.clock.advance(SECOND)
    assert len(reap(backend)) == 1
    again = backend.claim_one()
    assert backend.save(Outcome.finished(dead, '"dead"')) == frozenset()
    assert backend.save(Outcome.finished(again, '"alive"')) == {again.id}
    assert backend.read(again).result == "alive"


def test_a_claim_is_reaped_once(backend: Backend) -> None:
    """What was freed is not freed again."""
    backend.add(make_job())
    backend.claim_one(claimant=MORTAL)
    backend.clock.advance(SECOND)
    assert len(reap(backend)) == 1
    assert reap(backend) == []


def test_claims_that_are_not_silent(backend: Backend) -> None:
    """What beat just now, what stopped, was cancelled or waits is not freed."""
    backend.add(*(make_job() for _ in range(5)))
    dead, alive, done, cancelled = backend.claim(4, claimant=MORTAL)
    backend.save(Outcome.finished(done))
    backend.store.cancel_jobs([cancelled.id])
    backend.clock.advance(SECOND)
    backend.worker_store.touch_jobs([alive.fence])
    assert [rescue.job_id for rescue in reap(backend)] == [dead.id]


def test_silence_is_measured_to_the_microsecond(backend: Backend) -> None:
    """A claim may be silent for exactly as long as its lease."""
    backend.add(make_job())
    backend.claim_one(claimant=Claimant(name="n", lease=HOUR))
    backend.clock.advance(HOUR)
    assert reap(backend) == []
    backend.clock.advance(timedelta(microseconds=1))
    assert len(reap(backend)) == 1


def test_silence_counts_from_the_last_beat(backend: Backend) -> None:
    """A claim that beat once is dead when its lease has passed since then, not since it was made."""
    backend.add(make_job())
    job = backend.claim_one(claimant=Claimant(name="n", lease=HOUR))
    backend.clock.advance(HOUR)
    backend.worker_store.touch_jobs([job.fence])
    backend.clock.advance(HOUR)
    assert reap(backend) == []
    backend.clock.advance(SECOND)
    assert [rescue.job_id for rescue in reap(backend)] == [job.id]


def test_the_longer_of_lease_and_dead_for_holds(backend: Backend) -> None:
    """A reaper that is stricter than a claimer waits for the claimer's lease; one that is laxer for its own time."""
    backend.add(make_job(), make_job())
    long = backend.claim_one(claimant=Claimant(name="n", lease=HOUR))
    short = backend.claim_one(claimant=Claimant(name="n", lease=timedelta(0)))
    backend.clock.advance(DEAD_FOR)
    assert reap(backend) == []
    backend.clock.advance(timedelta(minutes=1))
    assert [rescue.job_id for rescue in reap(backend)] == [short.id]
    backend.clock.advance(HOUR)
    assert [rescue.job_id for rescue in reap(backend)] == [long.id]


def test_a_claim_without_beats_is_never_reaped(backend: Backend) -> None:
    """Who does not beat is not taken for dead."""
    backend.add(make_job())
    backend.claim_one(claimant=Claimant(name="n", lease=DEAD_FOR, beats=False))
    backend.clock.advance(timedelta(days=1000))
    assert reap(backend) == []


def test_several_are_reaped_at_once(backend: Backend) -> None:
    """All silent claims are freed by one call, whoever made them."""
    backend.add(*(make_job(f"t{number}") for number in range(20)))
    jobs = [backend.claim_one(claimant=Claimant(name=f"n{number}", lease=DEAD_FOR)) for number in range(20)]
    backend.clock.advance(SECOND)
    told = {(rescue.job_id, rescue.job_type, rescue.claimed_by) for rescue in reap(backend)}
    assert told == {(job.id, job.type, job.claimed_by) for job in jobs}


def test_too_many_rescues(backend: Backend) -> None:
    """A job that was rescued often enough is failed, with the evidence; its bundle counts it, and completes."""
    bundle = backend.add_bundle(1, on_stopped=JobDesc(1, type="after"))
    for number in (1, 2):
        backend.claim_one("t", claimant=MORTAL)
        backend.clock.advance(SECOND)
        (rescue,) = reap(backend, max_rescues=2)
        assert (rescue.rescue_count, rescue.failed) == (number, False)
        backend.assert_counts_true()
    job = backend.claim_one("t", claimant=MORTAL)
    now = backend.clock.advance(SECOND)
    (rescue,) = reap(backend, max_rescues=2)
    assert (rescue.failed, rescue.claimed_by, rescue.rescue_count) == (True, "dead:1:t", 2)
    read = backend.read(job)
    assert (read.state, read.is_finished, read.stopped_at, read.started_at) == (State.FAILED, True, now, job.started_at)
    assert (read.worker_alive_at, read.claimed_by, read.rescue_count) == (None, "dead:1:t", 2)
    assert "2 times" in (read.error_msg or "")
    assert read.error_data["claimed_by"] == "dead:1:t"
    assert read.error_data["rescue_count"] == 2
    assert datetime.fromisoformat(read.error_data["started_at"]) == job.started_at
    assert backend.counts(bundle) == (1, 1, True)
    assert reap(backend, max_rescues=2) == []


def test_no_rescue_at_all(backend: Backend) -> None:
    """With max_rescues of zero, a job whose worker dies is failed at once, with all its retries used up."""
    backend.add(make_job(max_retry_count=4))
    job = backend.claim_one(claimant=MORTAL)
    backend.clock.advance(SECOND)
    assert [rescue.failed for rescue in reap(backend, 0)] == [True]
    read = backend.read(job)
    assert (read.state, read.rescue_count, read.current_retry_count) == (State.FAILED, 0, 4)


def test_rescues_are_counted_over_runs(backend: Backend) -> None:
    """What ends well in between does not forgive the rescues before; a reset does."""
    backend.add(make_job())
    for expected in (1, 2):
        backend.claim_one(claimant=MORTAL)
        backend.clock.advance(SECOND)
        assert [rescue.rescue_count for rescue in reap(backend)] == [expected]
        backend.save(Outcome.snoozed(backend.claim_one(), timedelta(0)))
    job = backend.claim_one(claimant=MORTAL)
    backend.store.reset_jobs([job.id])
    backend.claim_one(claimant=MORTAL)
    backend.clock.advance(SECOND)
    assert [rescue.rescue_count for rescue in reap(backend)] == [1]


def test_nothing_to_reap(backend: Backend) -> None:
    """Where no claim is silent, nothing happens."""
    backend.add(make_job(), make_job())
    backend.claim_one()
    assert reap(backend) == []


# --- round after round


def make_round(backend: Backend, kept_for: timedelta | None = None) -> Round:
    return backend.worker_store.make_round(DEAD_FOR, 3, kept_for=kept_for)


def test_a_round_takes_up_what_is_silent(backend: Backend) -> None:
    """Who makes one round after the other takes up the same jobs as who looks at all of them at once."""
    make_round(backend)
    backend.add(make_job(), make_job())
    dead, alive = backend.claim(2, claimant=MORTAL)
    backend.clock.advance(SECOND)
    backend.worker_store.touch_jobs([alive.fence])
    rescue = Rescue(job_id=dead.id, job_type="t", claimed_by="dead:1:t", rescue_count=1, failed=False)
    assert make_round(backend).rescues == (rescue,)
    assert make_round(backend).rescues == ()


def test_a_round_in_which_silence_does_not_count(backend: Backend) -> None:
    """Nothing is taken up unless silence counts, which is asked of the moment at which claims are judged."""
    asked: list[datetime] = []
    make_round(backend)
    backend.add(make_job())
    backend.claim_one(claimant=MORTAL)
    now = backend.clock.advance(SECOND)
    done = backend.worker_store.make_round(DEAD_FOR, 3, if_counts=lambda now: asked.append(now) is not None)
    assert (done.rescues, asked) == ((), [now])


def settle(backend: Backend) -> None:
    """Make the first rounds, by which it is known that there are no claims of before."""
    wait_until(lambda: not make_round(backend).is_urgent, PATIENCE)


def test_a_round_tells_of_claims_in_doubt(backend: Backend) -> None:
    """The next one should come soon when a claim has missed beats for two thirds of its lease; not when all beat."""
    settle(backend)
    backend.add(make_job())
    job = backend.claim_one(claimant=Claimant(name="n", lease=timedelta(seconds=30)))
    backend.clock.advance(timedelta(seconds=20))
    assert not make_round(backend).is_urgent
    backend.clock.advance(timedelta(microseconds=1))
    assert make_round(backend).is_urgent
    backend.worker_store.touch_jobs([job.fence])
    assert not make_round(backend).is_urgent


def test_a_round_tells_of_bundles_to_be_deleted(backend: Backend) -> None:
    """It does so when one has been complete for long enough, and nobody failed; unasked it says that there may be."""
    assert make_round(backend).has_succeeded_bundles
    assert not make_round(backend, SECOND).has_succeeded_bundles
    backend.add_bundle(1, delete_when_succeeded=True)
    backend.add_bundle(1)
    failed = backend.add_bundle(1, delete_when_succeeded=True)
    jobs = backend.claim(3)
    backend.save(*(Outcome.finished(job) for job in jobs if job.bundle_id != failed.id))
    backend.store.cancel_jobs([job.id for job in jobs if job.bundle_id == failed.id])
    assert not make_round(backend, SECOND).has_succeeded_bundles
    backend.clock.advance(SECOND)
    assert make_round(backend, SECOND).has_succeeded_bundles
    assert backend.worker_store.delete_succeeded_bundles(SECOND) == 1
    assert not make_round(backend, SECOND).has_succeeded_bundles
