"""A queue in memory: who hears what of it, what its work costs, and moments at the edges of the calendar."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NoReturn

import attrs
import pytest

from jobqueue import Job, JobBundle, JobDesc, JobNotFoundError, PayloadError
from jobqueue.backends.memory import MemoryNotifier, MemoryQueue, MemoryStore
from jobqueue.backends.memory.connect import connect
from jobqueue.events import ClaimLost, Connected, Event, JobAvailable, JobBundleStopped, JobStopped
from jobqueue.outcomes import Claimant, Outcome
from jobqueue.queue_service import QueueService

CLAIMANT = Claimant(name="host:1:thread", lease=timedelta(seconds=60))
SOON = timedelta(milliseconds=50)


@pytest.fixture
def service() -> Iterator[QueueService]:
    """A service on a queue of its own."""
    with connect(origin="tests") as service:
        yield service


# --- who hears what


class Ear:
    """Keeps what a subscriber hears, and in which threads."""

    def __init__(self, notifier: MemoryNotifier) -> None:
        self.events: list[Event] = []
        self.threads: list[threading.Thread] = []
        self.end = notifier.subscribe(self, JobAvailable, JobStopped, JobBundleStopped, ClaimLost)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.threads.append(threading.current_thread())


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Do *work* in another thread; return that when it has ended."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    return thread


def test_subscribers_are_called_by_whoever_commits(service):
    """An event has been heard when the call that caused it returns, in the thread that called."""
    ear = Ear(service.notifier)
    assert ear.events == [Connected()]
    thread = in_thread(lambda: service.add_jobs([Job.new("t", 1), Job.new("t", 2)]))
    [_, event] = ear.events
    assert (event.type, event.origin, event.count, ear.threads[1]) == ("t", "tests", 2, thread)


def test_a_subscriber_may_call_the_store(service):
    """No lock is held while a subscriber is called."""
    seen: list[Job] = []

    def look(event: Event) -> None:
        if isinstance(event, JobAvailable):
            seen.append(service.get_job(event.id))

    service.notifier.subscribe(look, JobAvailable)
    assert [service.enqueue("t", 1)] == seen


def test_connected_is_heard_first(service):
    """What happens while a subscriber hears that it is connected reaches it afterwards."""
    heard: list[Event] = []

    def receive(event: Event) -> None:
        if isinstance(event, Connected):
            in_thread(lambda: service.enqueue("t", 1))
        heard.append(event)

    service.notifier.subscribe(receive, JobAvailable)
    assert [type(event) for event in heard] == [Connected, JobAvailable]


def test_a_failing_subscriber_harms_nobody(service, caplog):
    """The others hear, the call that caused the event succeeds, and the log tells of it."""

    def fail(event: Event) -> NoReturn:
        raise ValueError("no ear")

    service.notifier.subscribe(fail, JobAvailable)
    ear = Ear(service.notifier)
    job = service.enqueue("t", 1)
    assert [event.id for event in ear.events[1:]] == [job.id]
    assert [record.message for record in caplog.records] == [
        "a subscriber failed on Connected",
        "a subscriber failed on JobAvailable",
    ]


def test_one_service_that_closes_makes_no_other_deaf():
    """Subscribers hear nothing after the end of their subscription, or service; those of others on the queue do."""
    with connect("memory://heard") as service:
        with connect("memory://heard") as other:
            ended, closed, kept = Ear(service.notifier), Ear(other.notifier), Ear(service.notifier)
            ended.end()
            ended.end()
        service.enqueue("t", 1)
    assert [len(ear.events) for ear in (ended, closed, kept)] == [1, 1, 2]


# --- what it costs


class Unreadable(dict[Any, Any]):
    """A dictionary that nobody may look through."""

    def _refuse(self) -> NoReturn:
        raise AssertionError("all jobs are looked at")

    __iter__ = keys = values = items = _refuse


def test_working_looks_at_no_other_job():
    """Claims, beats, outcomes and the reaper find their jobs without a look at all others."""
    queue = MemoryQueue()
    store = MemoryStore(queue)
    store.add_jobs([Job.new("t", number, origin="o") for number in range(10)])
    queue._rows.jobs = Unreadable(queue._rows.jobs)
    with closing(store.for_workers(lock_timeout=SOON)) as workers:
        first, second = workers.claim_jobs(["*"], 2, CLAIMANT)
        assert workers.touch_jobs([first.fence]) == {first.id}
        trip = workers.make_trip([Outcome.finished(first), Outcome.released(second)], ["t"], 10, CLAIMANT)
        assert (trip.saved, len(trip.claimed)) == ({first.id, second.id}, 8)
        assert workers.claim_jobs(["t"], 1, CLAIMANT) == (second,)
        assert workers.reap_jobs(timedelta(seconds=60), 3) == []


def test_places_that_were_given_up_are_forgotten():
    """A job that is put off again and again, and jobs that are deleted unclaimed, leave nothing behind for long."""
    queue = MemoryQueue()
    store = MemoryStore(queue)
    job = Job.new("t", 1, origin="o")
    store.add_jobs([job])
    for number in range(1000):
        assert store.reschedule_job(job.id, datetime.now(UTC) + timedelta(days=1, seconds=number))
    [lane] = queue._rows.lanes._lanes.values()
    assert len(lane._later) + len(lane._due) < 200


def test_a_clock_that_is_put_back_is_believed():
    """A job that was due by one clock is not by an earlier one, and is claimed when it is due again."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    moments = [start]
    store = MemoryStore(MemoryQueue(), now=lambda: moments[-1])
    store.add_jobs(
        [Job.new("t", 1, origin="o", start_at=start + timedelta(seconds=10), priority=number) for number in (1, 2)]
    )
    workers = store.for_workers(lock_timeout=SOON)
    moments.append(start + timedelta(seconds=10))
    assert [job.priority for job in workers.claim_jobs(["t"], 1, CLAIMANT)] == [2]
    moments.append(start)
    trip = workers.make_trip([], ["t"], 1, CLAIMANT)
    assert (trip.claimed, trip.next_due_in) == ((), timedelta(seconds=10))
    moments.append(start + timedelta(seconds=10))
    assert [job.priority for job in workers.claim_jobs(["t"], 1, CLAIMANT)] == [1]


# --- all or nothing


def test_a_bundle_that_could_not_complete_is_not_added(service):
    """A job to add at the end that has no JSON form is found at the beginning, and nothing is added."""
    bundle = attrs.evolve(JobBundle.new("b", [JobDesc(1, "t")], origin="o"), on_stopped=JobDesc(object(), "last"))
    with pytest.raises(PayloadError):
        service.add_bundle(bundle)
    assert service.get_status().is_zero
    service.add_bundle(attrs.evolve(bundle, on_stopped=None))


# --- moments at the edges


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (datetime.max.replace(tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), datetime(9999, 12, 30, tzinfo=UTC)),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), datetime(1, 1, 2, tzinfo=UTC)),
        (datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2030, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_that_some_time_zone_cannot_tell(service, given, kept):
    """Start times are kept in UTC, a day from the ends of the calendar at most."""
    found = service.get_job(service.enqueue("t", 1, start_at=given).id)
    assert found.start_at == kept
    assert found.start_at.utcoffset() == timedelta(0)


def test_a_delay_that_leads_out_of_the_calendar():
    """A job that is put off by more than there are years is kept as late as can be told."""
    moment = datetime(9999, 12, 1, tzinfo=UTC)
    store = MemoryStore(MemoryQueue(), now=lambda: moment)
    job = Job.new("t", 1, origin="o")
    store.add_job(job, delay=timedelta(days=365))
    assert store.get_job(job.id).start_at == datetime(9999, 12, 30, tzinfo=UTC)


def test_what_is_deleted_is_not_claimed(service):
    """A deleted job has no place in the queue any more."""
    job, other = service.enqueue("t", 1), service.enqueue("t", 2)
    service.delete_job(job.id)
    with pytest.raises(JobNotFoundError):
        service.get_job(job.id)
    with closing(service.store.for_workers(lock_timeout=SOON)) as workers:
        assert workers.claim_jobs(["*"], 5, CLAIMANT) == (other,)


# --- what a long life leaves


def test_types_that_come_and_go(service):
    """A queue does not remember the types of jobs that are gone."""
    lanes = service.store._session.queue._rows.lanes
    for number in range(2000):
        service.enqueue(f"type {number}", 1)
        service.delete_jobs_of_type(f"type {number}")
    assert len(lanes._lanes) < 200


def test_a_slow_subscriber_delays_and_reverses_nothing(service):
    """What is committed while a subscriber is told something is told after that, in the order of the commits."""
    told, told_first, may_go_on = [], threading.Event(), threading.Event()

    def hear(event):
        if isinstance(event, JobStopped):
            told_first.set()
            assert may_go_on.wait(10)
            told.append(event.id)

    jobs = [service.enqueue("t", number) for number in range(3)]
    service.notifier.subscribe(hear, JobStopped)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(service.cancel_job, jobs[0].id)
        assert told_first.wait(10)
        service.cancel_job(jobs[1].id)
        service.cancel_job(jobs[2].id)
        may_go_on.set()
        first.result(10)
    assert told == [job.id for job in jobs]
