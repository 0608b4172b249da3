"""A bundle of a thousand jobs under all that can happen to its members, with one process killed on the way."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import jobqueue_pg
from jobqueue import JobBundle, JobDesc, State
from tests.fixtures.listening import Ear
from tests.fixtures.stores import assert_counts_true, fetch_all
from tests.fixtures.waiting import wait_until

MEMBERS = 1000
MORTAL = {"threads": 4, "heartbeat": 0.4, "dead_for": 1.5}
PATIENCE = 60

FAILING = range(0, MEMBERS, 10)
CANCELLED = range(1, MEMBERS, 20)
RESET = range(2, MEMBERS, 20)

# One statement sees one moment: what was committed, all of it, and nothing else.
RECOUNT = """
select b.num_jobs, b.num_jobs_stopped, b.stopped_at is not null, count(j.id), count(j.stopped_at)
from worker.job_bundle b left join worker.job j on j.bundle_id = b.id
where b.id = %s
group by b.id
"""


class Observer:
    """Compares the counters of a bundle with a recount of its members, over and over, in a thread of its own."""

    def __init__(self, conninfo, bundle_id):
        self.samples = 0
        self.numbers_seen = set()
        self.wrong = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(conninfo, bundle_id))
        self._thread.start()

    def _watch(self, conninfo, bundle_id):
        with psycopg.connect(conninfo, autocommit=True) as connection:
            while not self._ended.is_set():
                sample = connection.execute(RECOUNT, [bundle_id]).fetchone()
                assert sample is not None
                jobs, stopped, is_stopped, counted, counted_stopped = sample
                self.samples += 1
                self.numbers_seen.add(stopped)
                if (jobs, stopped, is_stopped) != (counted, counted_stopped, jobs == stopped):
                    self.wrong.append(sample)

    def end(self):
        self._ended.set()
        self._thread.join(PATIENCE)


@pytest.fixture
def service(migrated):
    with jobqueue_pg.connect(migrated, origin="tests") as service:
        yield service


def member(number: int) -> JobDesc:
    seconds = 3.0 if number in CANCELLED else 0.3 if number in RESET else 0.02
    return JobDesc({"seconds": seconds, "fails": number in FAILING}, type="member")


def cancel(service, jobs):
    """Cancel the first half of *jobs* as they are, and the others while they run."""
    for job in jobs[: len(jobs) // 2]:
        assert service.cancel_job(job.id)
    for job in jobs[len(jobs) // 2 :]:
        wait_until(lambda job=job: service.get_job(job.id).started, PATIENCE)
        assert service.cancel_job(job.id)


def reset_while_running(service, jobs):
    """Reset each of *jobs* when it is seen running; return the claims that were taken away by it.

    What has ended unseen is reset, too: it runs again, and may be seen then.
    """
    left = {job.id for job in jobs}
    taken = set()

    def reset_some():
        for job in service.list_jobs(state=State.RUNNING, limit=50):
            if job.id in left:
                service.reset_job(job.id)
                left.remove(job.id)
                taken.add(job.claim_id)
        # They run in the order of their ids.
        if left and service.get_job(min(left)).stopped:
            service.reset_job(min(left))
        return not left

    wait_until(reset_some, PATIENCE)
    return taken


def completions_heard(ear, bundle):
    return sum(channel == "job_bundle_stopped" and told["id"] == str(bundle.id) for channel, told in ear.heard())


def test_a_bundle_of_a_thousand(migrated, processes, service, connection):
    """Its counters equal a recount at every moment, it completes once per completion, and after all of its members."""
    workers = [processes.start(**MORTAL) for _ in range(3)]
    descs = [member(number) for number in range(MEMBERS)]
    bundle = JobBundle.new("big", descs, on_stopped=JobDesc({}, type="complete", priority=100))
    jobs = bundle.jobs
    with Ear(migrated) as ear:
        service.add_bundle(bundle)
        observer = Observer(migrated, bundle.id)
        with ThreadPoolExecutor(2) as executor:
            cancelling = executor.submit(cancel, service, [jobs[number] for number in CANCELLED])
            resetting = executor.submit(reset_while_running, service, [jobs[number] for number in RESET])
            wait_until(lambda: observer.numbers_seen and max(observer.numbers_seen) >= MEMBERS // 3, PATIENCE)
            random.choice(workers).kill()
            cancelling.result(PATIENCE)
            assert len(resetting.result(PATIENCE)) == len(RESET)
        ended = service.wait_for_bundle(bundle.id, PATIENCE)
        completing = wait_until(lambda: service.list_jobs(type="complete", state=State.SUCCEEDED), PATIENCE)

        # The members' fates, each as it was meant to be.
        expected = Counter(failed=len(FAILING), cancelled=len(CANCELLED))
        expected["succeeded"] = MEMBERS - expected.total()
        assert Counter(str(job.state) for job in ended.jobs) == expected
        assert {number for number, job in enumerate(ended.jobs) if job.state is State.CANCELLED} == set(CANCELLED)
        assert {number for number, job in enumerate(ended.jobs) if job.state is State.FAILED} == set(FAILING)

        # One completion: told once, and its one job came after all members.
        assert completions_heard(ear, bundle) == 1
        assert [job.result for job in completing] == [{"members": MEMBERS, "stopped": MEMBERS}]
        assert completing[0].started_at >= max(job.stopped_at for job in ended.jobs)

        # A member that is reset opens the bundle again, and its end is another completion.
        service.pause("member")
        service.reset_job(jobs[0].id)
        assert not service.get_job_bundle(bundle.id).stopped
        service.resume("member")
        service.wait_for_bundle(bundle.id, PATIENCE)
        wait_until(lambda: len(service.list_jobs(type="complete", state=State.SUCCEEDED)) == 2, PATIENCE)
        assert completions_heard(ear, bundle) == 1

    observer.end()
    assert observer.wrong == []
    assert observer.samples > 100
    assert len(observer.numbers_seen) > 50
    assert_counts_true(connection)
    assert fetch_all(connection, "select count(*) from run where event = 'run'") == [2]
    assert 1 <= sum(job.rescue_count for job in ended.jobs) <= MORTAL["threads"]
    assert sum(worker.has_ended for worker in workers) == 1
