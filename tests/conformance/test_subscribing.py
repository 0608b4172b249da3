"""Who hears what: subscribers come and go, hear what they want, and cannot harm each other."""

from typing import Any

import pytest

from jobqueue import ClosedError
from jobqueue.events import Connected, Event, JobAvailable, JobStopped
from jobqueue.models import Job
from tests.fixtures.backends import KINDS, Backend
from tests.fixtures.stores import make_job
from tests.fixtures.waiting import wait_until


def available(job: Job) -> JobAvailable:
    return JobAvailable(id=job.id, type=job.type, origin="o")


def stopped(job: Job) -> JobStopped:
    return JobStopped(id=job.id, type=job.type, origin="o", will_retry=False)


def test_connected_comes_first(backend: Backend) -> None:
    """A subscriber is told once that it hears, before everything else."""
    hearing = backend.hear()
    backend.add(make_job())
    hearing.heard()
    assert hearing.events[0] == Connected()
    assert Connected() not in hearing.events[1:]
    assert backend.notifier.is_listening


def test_nothing_is_missed_after_connected(backend: Backend) -> None:
    """What is committed after Connected is heard, by later subscribers too."""
    for _ in range(3):
        backend.add(make_job())
        hearing = backend.hear(JobAvailable)
        (job,) = backend.add(make_job())
        assert hearing.heard()[-1:] == [available(job)]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(backend: Backend, kind: type[Event]) -> None:
    """A subscriber hears the kinds that it wants, and no other."""
    hearing = backend.hear(kind)
    backend.add_bundle(1)
    backend.store.cancel_jobs([backend.claim_one().id])
    assert [type(event) for event in hearing.heard()] == [kind]
    assert {type(event) for event in hearing.events} == {Connected, kind}


def test_a_kind_that_nobody_wanted_before(backend: Backend) -> None:
    """A subscriber that wants another kind than those before it hears that, and they still hear theirs."""
    first = backend.hear(JobAvailable)
    second = backend.hear(JobStopped)
    (job,) = backend.add(make_job())
    backend.store.cancel_jobs([job.id])
    assert (first.heard(), second.heard()) == ([available(job)], [stopped(job)])


def test_every_subscriber_hears(backend: Backend) -> None:
    """Each of several subscribers hears everything that it wants, each once."""
    hearings = [backend.hear() for _ in range(3)]
    (job,) = backend.add(make_job())
    for hearing in hearings:
        assert hearing.heard() == [available(job)]


def test_a_subscriber_of_nothing(backend: Backend) -> None:
    """Who wants no kind hears Connected, and nothing more."""
    events: list[Event] = []
    backend.notifier.subscribe(events.append)
    wait_until(lambda: events)
    other = backend.hear(JobAvailable)
    backend.add(make_job())
    assert len(other.heard()) == 1
    assert events == [Connected()]


def test_unsubscribing(backend: Backend) -> None:
    """Who has ended its subscription, once or twice, hears no more; the others go on."""
    ended, other = backend.hear(), backend.hear()
    ended.end()
    ended.end()
    (job,) = backend.add(make_job())
    assert other.heard() == [available(job)]
    assert ended.events == [Connected()]


def test_subscribing_anew(backend: Backend) -> None:
    """After the last subscriber has gone, another one may come."""
    backend.hear(JobAvailable).end()
    hearing = backend.hear(JobAvailable)
    (job,) = backend.add(make_job())
    assert hearing.heard() == [available(job)]


def test_ending_from_within(backend: Backend) -> None:
    """A subscriber may end its own subscription while it is told something."""
    events: list[Event] = []
    ends: list[Any] = []

    def receive(event: Event) -> None:
        events.append(event)
        if isinstance(event, JobAvailable):
            ends[0]()

    ends.append(backend.notifier.subscribe(receive, JobAvailable))
    wait_until(lambda: events)
    other = backend.hear(JobAvailable)
    first, second = make_job(), make_job()
    backend.add(first)
    backend.add(second)
    assert other.heard() == [available(first), available(second)]
    assert events == [Connected(), available(first)]


def test_a_subscriber_that_fails(backend: Backend) -> None:
    """An error of one subscriber reaches neither the others, nor itself at the next event, nor the one who acts."""
    events: list[Event] = []

    def fail(event: Event) -> None:
        events.append(event)
        raise RuntimeError("no")

    backend.notifier.subscribe(fail, *KINDS)
    wait_until(lambda: events)
    other = backend.hear()
    jobs = [*backend.add(make_job()), *backend.add(make_job())]
    assert other.heard() == [available(job) for job in jobs]
    assert [event for event in events if isinstance(event, JobAvailable) and event.type == "t"] == [
        available(job) for job in jobs
    ]


def test_a_closed_notifier(backend: Backend) -> None:
    """A closed notifier takes no subscriber, and tells none; it may be closed twice."""
    hearing = backend.hear()
    backend.notifier.close()
    backend.notifier.close()
    backend.add(make_job())
    assert hearing.events == [Connected()]
    assert not backend.notifier.is_listening
    with pytest.raises(ClosedError):
        backend.notifier.subscribe(lambda _: None, JobAvailable)
