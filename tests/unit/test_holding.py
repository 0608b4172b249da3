"""What the dispatcher keeps: jobs held ahead of workers, outcomes that wait for one another."""

import threading
from datetime import timedelta

from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind, RunError
from jobqueue.worker import dispatcher
from tests.fixtures.rig import Rig
from tests.fixtures.waiting import wait_until

NO_TIME = 1e-6
ERROR = RunError(message="no luck")


def end_two_jobs(batching: Rig) -> None:
    """Have two workers end their jobs, the second while the first one is on a trip, which waits for its gate."""
    asked = batching.ask_all(3)
    batching.add(2)
    batching.dispatcher.ring()
    wait_until(lambda: sum(future.done() for future in asked) == 2)
    jobs = [future.result() for future in asked if future.done()]
    batching.store.open_gate.clear()
    for job in jobs:
        assert job is not None
        batching.dispatcher.hand_in(Outcome.finished(job), 1.0)
        batching.ask()
        # The second one makes another trip, which may have begun by now.
        wait_until(lambda: batching.store.travelling >= 1)


def test_few_outcomes_go_with_the_next_trip(batching, monkeypatch):
    """While a trip is under way, an outcome waits for it to come back: two small trips cost more than one."""
    monkeypatch.setattr(dispatcher, "_SECONDS_TO_COMBINE", 60.0)
    end_two_jobs(batching)
    wait_until(lambda: len(batching.desk.worker_wanted._waiters) == 2)
    batching.store.open_gate.set()
    wait_until(lambda: len(batching.store.saved) == 2)
    assert batching.store.most_travelling == 1


def test_few_outcomes_do_not_wait_for_long(batching):
    """After a few milliseconds a second trip carries them, whatever the first one waits for."""
    end_two_jobs(batching)
    wait_until(lambda: batching.store.travelling == 2)


def test_look_ahead_is_about_20_ms_of_work(batching):
    """Jobs are held ahead in proportion to how short they are: 20 of 1 ms each, none before that is known."""
    batching.add(200)
    job = batching.ask().result(5)
    assert batching.store.limits[-1] == 1
    batching.dispatcher.hand_in(Outcome.finished(job), 0.001)
    batching.ask().result(5)
    assert 20 <= batching.store.limits[-1] <= 22


def test_look_ahead_never_exceeds_the_batch_size(batching):
    """Of jobs that take no time at all, no more than a batch is held."""
    batching.add(500)
    for _ in range(300):
        batching.dispatcher.hand_in(Outcome.finished(batching.ask().result(5)), 0.0)
        assert len(batching.desk.held) <= 64
    assert max(batching.store.limits) == 64


def test_nothing_is_held_ahead_while_jobs_are_long(batching):
    """Handlers that take longer than 20 ms get their jobs one by one."""
    batching.add(20)
    for _ in range(5):
        batching.dispatcher.hand_in(Outcome.finished(batching.ask().result(5)), 0.5)
    assert set(batching.store.limits) == {1}


def held_ahead(batching: Rig) -> Job:
    """Have 20 jobs held ahead, and return one that a worker runs."""
    batching.add(60)
    batching.dispatcher.hand_in(Outcome.finished(batching.ask().result(5)), 0.001)
    job = batching.ask().result(5)
    assert len(batching.dispatcher.kept_fences()) >= 18
    return job


def test_what_is_held_for_too_long_is_handed_back(batching):
    """Jobs that no worker came for are released, by a trip of the keeper."""
    held_ahead(batching)
    held = batching.dispatcher.kept_fences()
    assert batching.dispatcher.hand_back(longer_than=60) == 0
    assert batching.dispatcher.hand_back(longer_than=0) == len(held)
    batching.dispatcher.carry_overdue(longer_than=0)
    released = {outcome.fence for outcome in batching.store.saved if outcome.kind is OutcomeKind.RELEASED}
    assert released == set(held)


def test_an_overdue_outcome_is_carried_without_a_worker(batching):
    """An outcome that waits while all workers run long jobs is carried by the keeper, once it is overdue."""
    job = held_ahead(batching)
    batching.dispatcher.hand_in(Outcome.finished(job), 0.001)
    batching.dispatcher.carry_overdue(longer_than=60)
    assert job.id not in {outcome.fence.job_id for outcome in batching.store.saved}
    batching.dispatcher.carry_overdue(longer_than=0)
    assert job.id in {outcome.fence.job_id for outcome in batching.store.saved}


def test_whatever_no_worker_runs_is_kept(batching):
    """Jobs held ahead, and outcomes handed in or on their way, are beaten for by the keeper; running jobs are not."""
    job = held_ahead(batching)
    assert job.fence not in batching.dispatcher.kept_fences()
    batching.dispatcher.hand_in(Outcome.finished(job), 0.001)
    assert job.fence in batching.dispatcher.kept_fences()
    batching.store.open_gate.clear()
    carrying = threading.Thread(target=batching.dispatcher.carry_overdue, args=(0,))
    carrying.start()
    wait_until(lambda: batching.store.travelling == 1)
    assert job.fence in batching.dispatcher.kept_fences()
    batching.store.open_gate.set()
    carrying.join()
    assert job.fence not in batching.dispatcher.kept_fences()


def test_held_jobs_whose_claims_were_lost_are_not_started(batching):
    """A held job that somebody else has taken is dropped."""
    held_ahead(batching)
    held = batching.dispatcher.kept_fences()
    assert batching.dispatcher.drop(held[:3]) == held[:3]
    assert batching.dispatcher.kept_fences() == held[3:]


def test_closing_hands_back_what_is_held(batching):
    """After close nothing is started, held jobs are released, and workers end when that is saved."""
    held_ahead(batching)
    held = set(batching.dispatcher.kept_fences())
    batching.dispatcher.close()
    assert batching.ask().result(5) is None
    assert held <= {outcome.fence for outcome in batching.store.saved if outcome.kind is OutcomeKind.RELEASED}


def add_suspect(batching: Rig) -> Job:
    """Add a job that was taken up from a dead worker, with others behind it, where jobs are short."""
    [suspect] = batching.add()
    batching.store.claim_jobs(["t"], 1, Claimant(name="dead", lease=timedelta(microseconds=1)))
    wait_until(lambda: batching.store.reap_jobs(timedelta(microseconds=1), 3))
    batching.add(60)
    batching.desk.demand.note_duration(0.001)
    return suspect


def test_a_suspect_runs_with_nothing_held_beside_it(batching):
    """What comes with a job that was rescued is handed back, and saved before that starts; then nothing is held."""
    suspect = add_suspect(batching)
    given = batching.ask().result(5)
    assert given == suspect
    assert batching.dispatcher.kept_fences() == []
    assert [job.id for job in batching.store.jobs.values() if job.started] == [suspect.id]
    other = batching.ask().result(5)
    batching.dispatcher.hand_in(Outcome.finished(other), 0.001)
    other = batching.ask().result(5)
    assert batching.dispatcher.kept_fences() == []
    for job in (given, other):
        batching.dispatcher.hand_in(Outcome.finished(job), 0.001)
    assert batching.ask().result(5) is not None
    assert len(batching.dispatcher.kept_fences()) >= 18


def test_a_suspect_waits_for_what_is_on_its_way(batching):
    """While what was handed back beside it is not saved, no other worker starts the suspect either."""
    suspect = add_suspect(batching)
    saving = threading.Event()
    batching.store.gates.extend([batching.store.open_gate, saving])
    asked = [batching.ask()]
    wait_until(lambda: batching.store.travelling == 1 and not batching.store.gates)
    asked.append(batching.ask())
    wait_until(lambda: len(batching.desk.alarms) == 1)
    assert not any(future.done() for future in asked)
    saving.set()
    assert suspect in [future.result(5) for future in asked]


def test_the_keeper_claims_nothing_for_nobody(batching):
    """While all workers are busy, what the keeper carries is not exchanged for jobs that nobody would start."""
    held_ahead(batching)
    assert batching.dispatcher.hand_back(longer_than=0.0) > 0
    claims = sum(batching.store.limits)
    batching.dispatcher.carry_overdue(longer_than=0.0)
    assert sum(batching.store.limits) == claims
