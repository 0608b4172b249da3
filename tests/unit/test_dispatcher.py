"""When trips are made, what they carry, who wakes whom: the dispatcher over rows in memory."""

import threading
import time
from concurrent import futures
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from jobqueue.errors import UnavailableError
from jobqueue.outcomes import Outcome, OutcomeKind, RunError
from jobqueue.worker.dispatcher import MAX_TRIPS
from jobqueue.worker.outbox import HandedIn
from tests.fixtures.rig import Rig
from tests.fixtures.waiting import wait_until

LONG = timedelta(seconds=30)
NO_TIME = 1e-6
ERROR = RunError(message="no luck")


def test_one_trip_carries_the_outcome_out_and_the_next_job_in(rig):
    """An outcome travels with the claim of the next job: one trip each, not two."""
    first, second = rig.add(2)
    job = rig.ask().result(5)
    assert job == first
    rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
    assert rig.ask().result(5) == second
    assert [outcome.fence.job_id for outcome in rig.store.saved] == [first.id]
    assert len(rig.store.limits) == 2


def test_a_job_is_not_claimed_before_somebody_wants_it(rig):
    """With a batch size of 1, a trip asks for as many jobs as there are workers without one."""
    rig.add(20)
    assert len({rig.ask().result(5).id for _ in range(3)}) == 3
    assert rig.store.limits == [1, 1, 1]
    assert sum(job.started for job in rig.store.jobs.values()) == 3


def test_there_are_never_more_than_two_trips(rig):
    """Ten workers with outcomes make two trips at a time, for there are two connections for them."""
    jobs = rig.add(10)
    claimed = [rig.ask().result(5) for _ in jobs]
    rig.store.open_gate.clear()
    asked = []
    for job in claimed:
        rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
        asked.append(rig.ask())
    wait_until(lambda: rig.store.travelling == MAX_TRIPS)
    wait_until(lambda: rig.desk.idle == len(jobs))
    rig.store.open_gate.set()
    wait_until(lambda: len(rig.store.saved) == len(jobs))
    assert rig.store.most_travelling == MAX_TRIPS


def test_outcomes_handed_in_during_a_trip_go_with_the_next_one(rig):
    """What comes together while both connections are in use is carried by one trip."""
    claimed = [rig.ask().result(5) for _ in rig.add(8)]
    before = len(rig.store.limits)
    rig.store.open_gate.clear()
    for job in claimed:
        rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
        rig.ask()
    wait_until(lambda: rig.store.travelling == MAX_TRIPS and rig.desk.idle == len(claimed))
    rig.store.open_gate.set()
    wait_until(lambda: len(rig.store.saved) == len(claimed))
    assert len(rig.store.limits) - before <= MAX_TRIPS + 2


def test_no_job_is_started_while_an_outcome_waits(rig):
    """A worker that comes back from a trip with a job takes outcomes that were handed in meanwhile out first."""
    first, second = rig.add(2)
    job = rig.ask().result(5)
    rig.store.open_gate.clear()
    asked = rig.ask()
    wait_until(lambda: rig.store.travelling == 1)
    rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
    rig.store.open_gate.set()
    assert asked.result(5) == second
    assert [outcome.fence.job_id for outcome in rig.store.saved] == [first.id]


def test_a_ring_during_a_trip_leads_to_another_look(rig):
    """What was added while a trip found nothing is looked for at once, and not when the poll interval is over."""
    rig.store.open_gate.clear()
    asked = rig.ask()
    wait_until(lambda: rig.store.travelling == 1)
    looks = len(rig.store.limits)
    rig.dispatcher.ring()
    rig.store.open_gate.set()
    wait_until(lambda: len(rig.store.limits) > looks)
    rig.add()
    rig.dispatcher.ring()
    assert asked.result(5) is not None


def test_a_back_off_that_ends_during_a_trip_leads_to_another_look(monkeypatch):
    """What a trip has left out is looked for when it comes back, and not when the poll interval is over."""
    monkeypatch.setattr("jobqueue.worker.back_offs._SHORTEST", 1.0)
    rig = Rig(desks=((("t", "other"), 1),))
    try:
        first, second = rig.add(2)
        job = rig.ask().result(5)
        assert job == first
        rig.back_offs.note_end(job, Outcome.failed(job, attrs.evolve(ERROR, back_off=True)), NO_TIME)
        rig.dispatcher.note_back_off()
        rig.store.open_gate.clear()
        asked = rig.ask()
        wait_until(lambda: rig.store.asked_for == [("t", "other"), ("other",)])
        wait_until(lambda: not rig.back_offs.closed())
        rig.store.open_gate.set()
        assert asked.result(5) == second
    finally:
        rig.end()


def test_a_ring_while_nobody_waits_is_remembered(rig):
    """A ring that finds all workers busy makes the next one that asks look."""
    job = rig.ask().result(5) if rig.add() else None
    assert job is not None
    rig.dispatcher.ring()
    rig.add()
    rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
    assert rig.ask().result(5) is not None


def test_one_ring_brings_jobs_to_as_many_workers_as_there_are_jobs(rig):
    """One trip claims for all workers that wait, and each job wakes one of them."""
    asked = rig.ask_all(6)
    looks = len(rig.store.limits)
    rig.add(4)
    rig.dispatcher.ring()
    wait_until(lambda: sum(future.done() for future in asked) == 4)
    assert len(rig.store.limits) == looks + 1


def test_one_job_costs_one_look(rig):
    """However many workers wait, one of them looks for what was added, and the others sleep on."""
    asked = rig.ask_all(8)
    looks = len(rig.store.limits)
    rig.add()
    rig.dispatcher.ring()
    wait_until(lambda: any(future.done() for future in asked))
    wait_until(lambda: len(rig.desk.worker_wanted._waiters) == 7)
    assert len(rig.store.limits) == looks + 1


def test_full_hands_mean_another_look(rig):
    """A trip that brought all it had asked for is followed by another, when somebody wants a job: there may be more."""
    jobs = rig.add(3)
    assert {rig.ask().result(5).id for _ in jobs} == {job.id for job in jobs}


def test_the_queue_is_polled(polling):
    """Workers that nobody rings look at the queue once per poll interval, together and not each for themselves."""
    polling.ask_all(5)
    looks, began = len(polling.store.limits), time.monotonic()
    wait_until(lambda: len(polling.store.limits) >= looks + 6)
    assert time.monotonic() - began > 0.2


def test_a_poll_finds_what_nobody_rang_for(polling):
    """A job that no ring told of is found within the poll interval."""
    [asked] = polling.ask_all(1)
    polling.add()
    assert asked.result(10) is not None


def test_a_job_is_looked_for_when_it_is_due(rig):
    """A trip that learns when the next job is due has it looked for at that moment."""
    rig.add(start_at=datetime.now(UTC) + timedelta(seconds=0.4))
    assert rig.ask().result(10) is not None


def test_the_moment_is_kept_by_those_who_wait_on(rig):
    """A worker that learnt when the next job is due and then got another job leaves the alarm to one that waits."""
    asked = rig.ask_all(2)
    rig.add(start_at=datetime.now(UTC) + timedelta(seconds=0.5))
    rig.add()
    rig.dispatcher.ring()
    wait_until(lambda: all(future.done() for future in asked))


def test_a_moment_is_not_forgotten_for_a_trip_that_knew_less(rig):
    """Of two trips on their way, the one that comes back last does not take away what the first has learnt."""
    job = rig.ask().result(5) if rig.add() else None
    slow = threading.Event()
    rig.store.gates.append(slow)
    other = rig.ask()
    wait_until(lambda: rig.store.travelling == 1)
    rig.dispatcher.hand_in(Outcome.retry(job, ERROR, delay=timedelta(seconds=0.5)), NO_TIME)
    asked = rig.ask()
    wait_until(lambda: rig.store.saved)
    slow.set()
    wait_until(lambda: asked.done() or other.done())


@pytest.mark.parametrize("kind", ["delay", "start_at"])
def test_a_retry_is_looked_for_when_it_is_due(rig, kind):
    """A retry that a trip itself saved runs when it is due, however its moment was given."""
    job = rig.ask().result(5) if rig.add() else None
    later = timedelta(seconds=0.3)
    when = {"delay": later} if kind == "delay" else {"start_at": datetime.now(UTC) + later}
    rig.dispatcher.hand_in(Outcome.retry(job, ERROR, **when), NO_TIME)
    again = rig.ask().result(10)
    assert (again.id, again.claim_id != job.claim_id) == (job.id, True)


def test_workers_that_wait_for_a_trip_do_not_spin(polling):
    """While the database takes longer than a poll interval to answer, the other workers sleep."""
    polling.ask_all(6)
    polling.store.open_gate.clear()
    polling.dispatcher.ring()
    wait_until(lambda: polling.store.travelling >= 1)
    wait_until(lambda: len(polling.desk.worker_wanted._waiters) >= 4)
    began = time.process_time()
    assert not threading.Event().wait(1)
    assert time.process_time() - began < 0.1


def test_a_broken_trip_loses_nothing(rig):
    """Outcomes of a trip that broke off travel again, after a while, and claims go on."""
    first, second = rig.add(2)
    job = rig.ask().result(5)
    rig.store.failures.append(UnavailableError("gone"))
    rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
    assert rig.ask().result(5) == second
    assert [outcome.fence.job_id for outcome in rig.store.saved] == [first.id]


def test_a_broken_look_is_repeated(rig):
    """A trip that broke off before it could claim is made again soon, and not when the poll interval is over."""
    [asked] = rig.ask_all(1)
    rig.store.failures.append(UnavailableError("gone"))
    rig.add()
    rig.dispatcher.ring()
    assert asked.result(10) is not None


def test_a_ring_during_a_back_off_is_not_lost(rig):
    """Who is told to look while the database is given a rest looks right after that."""
    [asked] = rig.ask_all(1)
    rig.store.failures.extend([UnavailableError("gone"), UnavailableError("gone")])
    looks = len(rig.store.limits)
    rig.dispatcher.ring()
    wait_until(lambda: len(rig.store.limits) > looks)
    rig.add()
    rig.dispatcher.ring()
    assert asked.result(10) is not None


def test_an_error_that_no_store_may_raise_loses_nothing(rig):
    """Whatever a trip ends by, its outcomes are kept."""
    job = rig.ask().result(5) if rig.add() else None
    rig.store.failures.append(ValueError("not an error of ours"))
    rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
    with pytest.raises(ValueError, match="not an error of ours"):
        rig.ask().result(5)
    rig.ask()
    wait_until(lambda: rig.store.saved)
    assert rig.dispatcher.wait_until_saved(5)


def test_jobs_that_the_keeper_brings_wake_workers(rig):
    """A trip by somebody who runs no jobs wakes a worker for each job that it brings."""
    rig.add()
    job = rig.ask().result(5)
    [asked] = rig.ask_all(1)
    rig.add()
    rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
    rig.dispatcher.carry_overdue(longer_than=0)
    assert asked.result(10) is not None


def test_jobs_that_come_in_while_closing_are_handed_back(rig):
    """What a trip claims that was on its way when the pool stopped is released before the last worker ends."""
    rig.add(3)
    rig.store.open_gate.clear()
    asked = rig.ask()
    wait_until(lambda: rig.store.travelling == 1)
    rig.dispatcher.close()
    rig.store.open_gate.set()
    assert asked.result(5) is None
    assert rig.dispatcher.wait_until_saved(5)
    assert not any(job.started for job in rig.store.jobs.values())


def test_nothing_is_claimed_after_close(rig):
    """A worker that asks after close gets nothing, and makes no trip for it."""
    rig.dispatcher.close()
    rig.add()
    assert rig.ask().result(5) is None
    assert rig.store.limits == []


def test_workers_end_when_abandoned_although_outcomes_wait(rig):
    """Workers whose outcomes the database does not take end when nobody waits for them any more."""
    job = rig.ask().result(5) if rig.add() else None
    rig.store.failures.extend(UnavailableError("gone") for _ in range(100))
    rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
    asked = rig.ask()
    rig.dispatcher.close()
    wait_until(lambda: len(rig.store.failures) < 99)
    assert not asked.done()
    rig.dispatcher.abandon()
    assert asked.result(5) is None
    assert not rig.dispatcher.wait_until_saved(0)


def test_a_ring_during_a_trip_of_the_keepers_is_heeded(rig):
    """Workers that wait look again when the keeper, which takes no job, was on its way while somebody rang."""
    (job,) = rig.add()
    claimed = rig.ask().result(5)
    asked = rig.ask_all(2)
    with rig.dispatcher._lock:
        rig.dispatcher._outbox.waiting.append(HandedIn(Outcome.finished(claimed), 0.0))
    rig.store.open_gate.clear()
    keeper = threading.Thread(target=rig.dispatcher.carry_overdue, args=(0.0,))
    keeper.start()
    wait_until(lambda: rig.store.travelling == 1)
    (another,) = rig.add()
    rig.dispatcher.ring()
    rig.store.open_gate.set()
    keeper.join()
    assert another in [future.result() for future in futures.wait(asked, 5, futures.FIRST_COMPLETED).done]
    assert job == claimed


def test_a_lane_is_kept_free_for_maintenance(rig):
    """While maintenance has a lane, trips go one at a time; then two at a time again."""
    claimed = [rig.ask().result(5) for _ in rig.add(6)]
    rig.store.open_gate.clear()
    with rig.dispatcher.lane():
        for job in claimed[:3]:
            rig.dispatcher.hand_in(Outcome.finished(job), NO_TIME)
            rig.ask()
        wait_until(lambda: rig.store.travelling == 1 and rig.desk.idle == 3)
        assert rig.store.most_travelling == 1
    wait_until(lambda: rig.store.travelling == MAX_TRIPS)
    rig.store.open_gate.set()
    wait_until(lambda: len(rig.store.saved) == 3)


def test_nothing_is_saved_while_a_job_runs(rig):
    """A pool that ends knows of jobs that were given out, although nothing waits for the database."""
    rig.add()
    job = rig.ask().result(5)
    rig.dispatcher.close()
    assert not rig.dispatcher.wait_until_saved(0.01)
    rig.dispatcher.release(job)
    rig.dispatcher.carry_overdue(0.0)
    assert rig.dispatcher.wait_until_saved(5)
    assert [outcome.kind for outcome in rig.store.saved] == [OutcomeKind.RELEASED]
