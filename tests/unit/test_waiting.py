"""Waiting for jobs and bundles: who is woken by what, how long it takes, and what it costs."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from jobqueue.backends.memory import MemoryNotifier, MemoryQueue, MemoryStore
from jobqueue.errors import (
    ClosedError,
    JobBundleNotFoundError,
    JobNotFoundError,
    JobQueueError,
    LockTimeoutError,
    RefusedError,
    UnavailableError,
)
from jobqueue.events import Connected, JobStopped
from jobqueue.job_context import JobContext, current_job_context
from jobqueue.models import Job, new_id
from jobqueue.queue_service import QueueService
from jobqueue.settings import WorkerSettings
from jobqueue.waiting import Waiting
from jobqueue_pg.notifier import SilentNotifier
from tests.fixtures.stores import make_bundle, make_job
from tests.fixtures.waiters import LONG, PATIENCE, WaitingRig
from tests.fixtures.waiting import wait_until

UNHEARD = PATIENCE / 2
"""Shorter than any poll of who can hear, and any wait; longer than it takes to hear, however busy the machine is."""


@pytest.fixture
def rig():
    made = WaitingRig()
    yield made
    made.end()


@pytest.fixture
def service():
    """A service in memory."""
    queue = MemoryQueue()
    made = QueueService(
        store=MemoryStore(queue),
        notifier=MemoryNotifier(queue),
        settings=WorkerSettings(poll_interval=LONG),
        origin="tests",
    )
    yield made
    if not made._closed:
        made.close()


def seconds_since(began: float) -> float:
    return time.monotonic() - began


# --- when it stops


def test_who_waits_is_woken_by_the_end(rig):
    """Nothing is polled: the wait ends because the event was heard, and returns the job as it then is."""
    job = rig.add()
    waiter = rig.start(job)
    rig.waiting_for(1)
    began = time.monotonic()
    rig.stop(job)
    assert waiter.result(PATIENCE).stopped
    assert seconds_since(began) < UNHEARD


def test_what_has_stopped_already_is_returned_at_once(rig):
    """It costs one look, and nobody listens for it."""
    job = rig.add()
    rig.stop(job)
    assert rig.wait(job).stopped
    assert (rig.looks, rig.ears.most) == (1, 0)


@pytest.mark.parametrize("look", [1, 2])
@pytest.mark.parametrize("moment", ["before_look", "after_look"])
def test_an_end_around_a_look_is_not_missed(rig, moment, look):
    """Whether a job stops right before or right after any look, the wait ends at once."""
    job = rig.add()
    setattr(rig, moment, lambda number: number == look and rig.stop(job))
    began = time.monotonic()
    assert rig.wait(job).stopped
    assert seconds_since(began) < UNHEARD


def test_an_end_while_the_subscription_is_made_is_not_missed(rig, monkeypatch):
    """A notifier that connects late says so, and whoever waits looks again."""
    job = rig.add()
    rig.ears.is_deaf = True
    monkeypatch.setattr("jobqueue.waiting._SECONDS_WHEN_DEAF", 60)
    waiter = rig.start(job)
    rig.waiting_for(1)
    rig.stop(job)
    assert not waiter.done()
    rig.ears.is_deaf = False
    rig.ears.receivers[0](Connected())
    assert waiter.result(UNHEARD).stopped


def test_a_retry_is_not_the_end(rig):
    """A run that will be retried wakes those who wait, and they go on waiting."""
    job = rig.add()
    waiter = rig.start(job)
    rig.waiting_for(1)
    before = rig.looks
    rig.ears.receivers[0](JobStopped(id=job.id, type="t", origin="o", will_retry=True))
    wait_until(lambda: rig.looks == before + 1)
    rig.waiting_for(1)
    assert not waiter.done()
    rig.stop(job)
    assert waiter.result(UNHEARD).stopped


def test_others_are_not_woken(rig):
    """The end of one job makes nobody look who waits for another."""
    jobs = [rig.add() for _ in range(3)]
    waiters = [rig.start(job) for job in jobs]
    rig.waiting_for(3)
    before = rig.looks
    rig.stop(jobs[0])
    assert waiters[0].result(PATIENCE) == jobs[0]
    assert rig.looks == before + 1
    for job in jobs[1:]:
        rig.stop(job)


def test_many_who_wait_share_one_subscription(rig):
    """It is made for the first and ended with the last, however many there are and whatever they wait for."""
    jobs, bundle = [rig.add() for _ in range(20)], make_bundle(1)
    rig.store.add_bundle(bundle)
    for _ in range(2):
        waiters = [rig.start(job) for job in jobs for _ in range(2)]
        rig.waiting_for(len(waiters))
        assert len(rig.ears.receivers) == 1
        of_bundle = rig.start_bundle(bundle.id)
        rig.waiting_for(len(waiters) + 1)
        assert len(rig.ears.receivers) == 2
        rig.store.cancel_jobs([job.id for job in jobs])
        assert all(waiter.result(PATIENCE).stopped for waiter in waiters)
        assert len(rig.ears.receivers) == 1
        rig.store.cancel_jobs([bundle.jobs[0].id])
        assert of_bundle.result(PATIENCE).stopped
        assert rig.ears.receivers == []
        rig.store.reset_jobs([*(job.id for job in jobs), bundle.jobs[0].id])
    assert rig.ears.most == 2


def test_waiters_come_and_go_in_many_threads(rig):
    """Whoever comes while the last one goes is heard for."""

    def work(_: int) -> None:
        for _ in range(20):
            job = rig.add()
            waiter = rig.start(job)
            rig.stop(job)
            assert waiter.result(PATIENCE).stopped

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert rig.ears.receivers == []


def test_a_bundle_is_waited_for(rig):
    """The wait ends with its last member, and returns the bundle with all of them."""
    bundle = make_bundle(2)
    rig.store.add_bundle(bundle)
    waiter = rig.start_bundle(bundle.id)
    rig.waiting_for(1)
    rig.stop(bundle.jobs[0])
    assert not waiter.done()
    rig.stop(bundle.jobs[1])
    assert [job.stopped for job in waiter.result(UNHEARD).jobs] == [True, True]


# --- when it does not


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5])
def test_a_timeout_of_zero_is_one_look(rig, timeout):
    """Nobody listens, and nothing is waited for."""
    with pytest.raises(TimeoutError):
        rig.wait(rig.add(), timeout)
    assert (rig.looks, rig.ears.most) == (1, 0)


@pytest.mark.parametrize("timeout", [0.2, timedelta(seconds=0.2)])
def test_a_timeout_names_the_job_and_its_state(service, timeout):
    """The error comes in time, and says which job, how long, and how far it is."""
    job = service.enqueue("t", 1)
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        service.wait_for_job(job.id, timeout)
    assert 0.2 <= seconds_since(began) < UNHEARD
    assert str(caught.value) == f"job {job.id} has not stopped within 0.2 s: it is available"
    [claimed] = service.claim("t")
    with claimed, pytest.raises(TimeoutError, match="it is running"):
        service.wait_for_job(job.id, 0)


def test_a_timeout_names_the_bundle_and_its_jobs(service):
    """For a bundle it says how many of its jobs have stopped."""
    bundle = service.add_bundle(make_bundle(3))
    service.cancel_job(bundle.jobs[0].id)
    with pytest.raises(TimeoutError) as caught:
        service.wait_for_bundle(bundle.id, 0.05)
    assert str(caught.value) == f"bundle {bundle.id} has not stopped within 0.05 s: 1 of its 3 jobs have"


@pytest.mark.parametrize("timeout", [None, timedelta.max, 1e12])
def test_a_wait_without_end(service, timeout):
    """None, and more than a thread can wait, is for ever."""
    job = service.enqueue("t", 1)
    with ThreadPoolExecutor() as threads:
        waiter = threads.submit(service.wait_for_job, job.id, timeout)
        wait_until(lambda: service._waiting._waiters[JobStopped])
        assert not waiter.done()
        service.cancel_job(job.id)
        assert waiter.result(UNHEARD).stopped


def test_the_last_look_is_at_the_deadline(monkeypatch):
    """What stopped unheard before the timeout was over is returned, not a TimeoutError."""
    monkeypatch.setattr("jobqueue.waiting._SECONDS_WHEN_DEAF", 60)
    rig = WaitingRig()
    rig.ears.is_deaf = True
    job = rig.add()
    rig.after_look = lambda number: number == 2 and rig.stop(job)
    assert rig.wait(job, 1).stopped
    assert rig.looks == 3
    rig.end()


def test_a_job_that_is_not_there_is_an_error_at_once(service):
    """Nobody waits for what cannot be seen; the error names the likely cause."""
    began = time.monotonic()
    with pytest.raises(JobNotFoundError, match="in a transaction that has not committed"):
        service.wait_for_job(new_id(), None)
    with pytest.raises(JobBundleNotFoundError, match="in a transaction that has not committed"):
        service.wait_for_bundle(new_id(), None)
    assert seconds_since(began) < UNHEARD


def test_a_job_that_is_deleted_meanwhile_is_an_error():
    """It is found at the next look, and nobody listens afterwards."""
    rig = WaitingRig(timedelta(seconds=0.1))
    job = rig.add()
    waiter = rig.start(job)
    rig.waiting_for(1)
    rig.store.delete_jobs([job.id])
    with pytest.raises(JobNotFoundError):
        waiter.result(UNHEARD)
    rig.end()


# --- when nothing is heard


def test_who_cannot_hear_looks(monkeypatch):
    """A service that polls only looks every half a second, or at the poll interval when that is shorter."""
    at_first = []
    for poll_interval, least in ((LONG, 0.5), (timedelta(seconds=0.1), 0.1)):
        queue = MemoryQueue()
        store, job = MemoryStore(queue), make_job()
        store.add_job(job, delay=None)
        looks: list[float] = []

        def get(id: UUID, store=store, looks=looks) -> Job:
            looks.append(time.monotonic())
            if len(looks) == 4:
                store.cancel_jobs([id])
            return store.get_job(id)

        Waiting(SilentNotifier(), poll_interval).wait_for_job(job.id, get, PATIENCE)
        assert len(looks) == 4
        first, *others = [later - earlier for earlier, later in pairwise(looks)]
        at_first.append(first)
        # Any thread may stand still now and then.
        assert least <= min(others) < least + 0.3
    # The first two come together: before listening, and after.
    assert min(at_first) < 0.1


@pytest.mark.parametrize("trouble", [UnavailableError("gone"), LockTimeoutError("locked")])
def test_an_outage_is_waited_out(rig, trouble):
    """While the database does not answer the wait goes on, and ends soon after it does."""
    job = rig.add()
    rig.trouble = trouble
    waiter = rig.start(job)
    wait_until(lambda: rig.looks >= 3)
    rig.stop(job)
    rig.trouble = None
    assert waiter.result(UNHEARD).stopped


def test_an_outage_until_the_deadline_is_the_cause(rig):
    """The TimeoutError says that the database does not answer, and has its error as the cause."""
    job = rig.add()
    rig.trouble = UnavailableError("gone")
    with pytest.raises(TimeoutError, match=f"job {job.id} .* within 0.1 s: the database does not answer") as caught:
        rig.wait(job, 0.1)
    assert caught.value.__cause__ is rig.trouble


def test_another_error_ends_the_wait(rig):
    """What does not go away by itself is raised, and nobody listens afterwards."""
    job = rig.add()
    waiter = rig.start(job)
    rig.waiting_for(1)
    rig.trouble = RefusedError("no")
    rig.waiting.wake()
    with pytest.raises(RefusedError):
        waiter.result(UNHEARD)
    assert rig.ears.receivers == []


def test_a_notifier_that_is_closed_ends_the_wait(rig):
    """Who comes too late leaves nothing behind."""
    job = rig.add()
    rig.ears.close()
    with pytest.raises(ClosedError):
        rig.wait(job)
    assert not any(rig.waiting._waiters.values())


def test_closing_the_service_ends_all_waits(service):
    """Who waits gets a ClosedError, soon."""
    jobs = [service.enqueue("t", number) for number in range(5)]
    with ThreadPoolExecutor() as threads:
        waiters = [threads.submit(service.wait_for_job, job.id, None) for job in jobs]
        wait_until(lambda: len(service._waiting._waiters[JobStopped]) == len(jobs))
        service.close()
        for waiter in waiters:
            with pytest.raises(ClosedError):
                waiter.result(UNHEARD)
    with pytest.raises(ClosedError):
        service.wait_for_job(jobs[0].id, 1)


# --- who may wait


def test_handlers_may_not_wait_unless_they_say_so(service):
    """A handler would block a worker: that is refused, with the way out, before anything else."""
    job, bundle = service.enqueue("t", 1), service.add_bundle(make_bundle(1))
    token = current_job_context.set(JobContext(Job.new("mine", 1)))
    try:
        for wait, id_ in ((service.wait_for_job, job.id), (service.wait_for_bundle, bundle.id)):
            with pytest.raises(JobQueueError, match=r"\(mine\) would block a worker thread.*allow_in_handler=True"):
                wait(id_, 0)
            with pytest.raises(TimeoutError):
                wait(id_, 0, allow_in_handler=True)
    finally:
        current_job_context.reset(token)


def test_the_functions_of_the_module_wait_too(service):
    """jobqueue.wait_for_job and wait_for_bundle are those of the current service."""
    import jobqueue

    job, bundle = service.enqueue("t", 1), service.add_bundle(make_bundle(1))
    service.cancel_job(job.id)
    service.cancel_job(bundle.jobs[0].id)
    with jobqueue.use_service(service):
        assert jobqueue.wait_for_job(job.id, 1).stopped
        assert jobqueue.wait_for_bundle(bundle.id, timedelta(seconds=1)) == bundle
