"""Worker processes that die, or seem to have died, in the middle of a job."""

import time

import pytest

import jobqueue_pg
from jobqueue import Job, JobBundle, JobDesc, State
from tests.fixtures.stores import assert_counts_true, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

DEAD_FOR = 1.0
MORTAL = {"threads": 1, "heartbeat": 0.3, "dead_for": DEAD_FOR}


@pytest.fixture
def service(migrated):
    with jobqueue_pg.connect(migrated, origin="tests") as service:
        yield service


def pids(connection, job):
    """Name the processes that have begun a job, in their order."""
    return fetch_all(connection, "select pid from run where job_id = %s and event = 'began' order by at", job.id)


def process_of(connection, workers, job):
    """Wait until a job has begun, and return the process that runs it, and the others."""
    pid = wait_until(lambda: pids(connection, job))[0]
    [its] = [worker for worker in workers if worker.pid == pid]
    return its, [worker for worker in workers if worker is not its]


def test_the_job_of_a_killed_process_runs_again(processes, service, connection):
    """Another process, running already, takes it up within dead_for + 5 s; that costs no retry, and counts are true."""
    workers = [processes.start(**MORTAL) for _ in range(2)]
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(60, type="first slow"), JobDesc(1, type="quick")]))
    job = bundle.jobs[0]
    victim, [other] = process_of(connection, workers, job)
    victim.kill()
    killed_at = time.monotonic()
    ended = wait_for_end(service, job, DEAD_FOR + 6)
    assert time.monotonic() - killed_at < DEAD_FOR + 5
    assert (ended.result, ended.rescue_count, ended.current_retry_count, ended.run_count) == (other.pid, 1, 0, 1)
    assert pids(connection, job) == [victim.pid, other.pid]
    wait_until(lambda: service.get_job_bundle(bundle.id).stopped)
    assert service.get_job_bundle(bundle.id).num_jobs_stopped == 2
    assert_counts_true(connection)
    assert other.finish()["refused_outcomes"] == 0


def test_what_a_killed_process_did_in_the_applications_transaction_counts_once(processes, service, connection):
    """What an atomic handler had done when its process was killed is gone; whoever takes its job up does it once."""
    workers = [processes.start(**MORTAL) for _ in range(2)]
    job = service.enqueue("charge", 60)
    victim, [other] = process_of(connection, workers, job)
    victim.kill()
    ended = wait_for_end(service, job, DEAD_FOR + 6)
    assert (ended.state, ended.result, ended.rescue_count) == (State.SUCCEEDED, other.pid, 1)
    assert fetch_all(connection, "select pid from run where event = 'charged'") == [other.pid]
    assert other.finish()["refused_outcomes"] == 0


def test_what_a_killed_process_held_ahead_runs_elsewhere(processes, service, connection):
    """Jobs that were claimed and not started when their process died are taken up, too."""
    victim = processes.start(**MORTAL, batch_size=64)
    with connection.transaction():
        for number in range(200):
            service.enqueue("quick", number, priority=1, connection=connection)
        for _ in range(30):
            service.enqueue("slow", 0.2, connection=connection)
    wait_until(lambda: fetch_all(connection, "select count(*) from run where event = 'began'")[0] > 1)
    victim.kill()
    other = processes.start(**{**MORTAL, "threads": 8})
    left = "select count(*) from worker.job where stopped_at is null"
    wait_until(lambda: fetch_all(connection, left) == [0], DEAD_FOR + 15)
    assert fetch_all(connection, "select max(run_count) from worker.job") == [1]
    assert other.finish()["refused_outcomes"] == 0


def test_a_poison_job_is_failed_in_the_end(processes, service, connection):
    """A job that kills every process that runs it is taken up max_rescues times, and then failed with the evidence.

    Those that its processes had claimed with it, and never began, are not.
    """
    job = service.enqueue("poison", 1, max_retry_count=2)
    service.add_jobs([Job.new("quick", number) for number in range(40)])
    begun = []
    for _ in range(4):
        # Such as make a pool hold many of them ahead.
        service.add_jobs([Job.new("quick", number, priority=1) for number in range(200)])
        victim = processes.start(**{**MORTAL, "threads": 1}, batch_size=64)
        wait_until(lambda victim=victim: victim.has_ended, 15)
        begun.append(victim.pid)
    survivor = processes.start(**MORTAL)
    ended = wait_for_end(service, job, 15)
    assert pids(connection, job) == begun
    assert (ended.state, ended.rescue_count, ended.current_retry_count) == (State.FAILED, 3, 2)
    assert "fell silent" in ended.error_msg
    evidence = ended.error_data
    assert (evidence["type"], evidence["rescue_count"]) == ("TooManyRescues", 3)
    assert f":{begun[-1]}:" in evidence["claimed_by"]
    assert {"started_at", "worker_alive_at"} <= set(evidence)
    assert not survivor.has_ended
    wait_until(lambda: fetch_all(connection, "select count(*) from worker.job where stopped_at is null") == [0], 15)
    assert fetch_all(connection, 'select "type" from worker.job where error_msg is not null') == ["poison"]


def test_a_process_that_wakes_up_too_late_changes_nothing(processes, service, connection):
    """A process that slept past dead_for finds its claim lost; the result of the other one stands."""
    workers = [processes.start(**MORTAL) for _ in range(2)]
    bundle = service.add_bundle(
        JobBundle.new("b", [JobDesc(1.5, type="first slow")], on_stopped=JobDesc(1, type="quick"))
    )
    [job] = bundle.jobs
    zombie, [other] = process_of(connection, workers, job)
    zombie.freeze()
    try:
        ended = wait_for_end(service, job, DEAD_FOR + 6)
        assert (ended.result, ended.rescue_count) == (other.pid, 1)
        completed = service.get_job_bundle(bundle.id)
        assert completed.stopped
    finally:
        zombie.thaw()
    last = "select event from run where pid = %s and event <> 'began' and job_id = %s"
    wait_until(lambda: fetch_all(connection, last, zombie.pid, job.id))
    counts = zombie.finish()
    assert counts == {"lost_claims": 1, "refused_outcomes": 1}
    again = service.get_job(job.id)
    assert (again.result, again.run_count, again.stopped_at) == (other.pid, 1, ended.stopped_at)
    assert service.get_job_bundle(bundle.id).stopped_at == completed.stopped_at
    wait_until(lambda: fetch_all(connection, "select count(*) from run where event = 'run'") == [1])
    assert fetch_all(connection, "select count(*) from worker.job where type = 'quick'") == [1]
    assert_counts_true(connection)
    other.finish()
