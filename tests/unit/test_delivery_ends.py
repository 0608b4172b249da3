"""Where the delivery of events ends: a queue that is full, a listener that blocks, a service that closes."""

import threading

import pytest

from jobqueue.delivery import MAX_BATCH, MAX_WAITING_EVENTS
from tests.fixtures.delivering import PATIENCE, DeliveryRig, stopped, threads
from tests.fixtures.stores import make_job
from tests.fixtures.waiting import wait_until


@pytest.fixture
def rig():
    made = DeliveryRig()
    yield made
    made.end()


# --- too many events


def test_more_events_than_fit_are_dropped_and_counted(rig, caplog):
    """Slow listeners cost events, not memory: each is counted, and an episode has a first and a last line."""
    rig.hear_events()
    for episode in (1, 2):
        go_on = rig.held()
        rig.heard.clear()
        caplog.clear()
        last = make_job()
        event = stopped(make_job())
        for _ in range(MAX_WAITING_EVENTS + 30):
            rig.voice.say(event)
        assert rig.health.report()["dropped_events"] == 30 * episode
        go_on()
        wait_until(lambda: len(rig.heard) >= MAX_WAITING_EVENTS)
        rig.voice.say(stopped(last))
        wait_until(lambda last=last: rig.heard[-1] == last.id)
        assert [record.getMessage() for record in caplog.records] == [
            "listeners are too slow: 10000 events wait for them, and more are dropped",
            "listeners have caught up; they were not told of 30 events",
        ]


def test_an_episode_lasts_until_the_queue_is_empty(rig, caplog):
    """A queue that is full again and again while it is worked off is one episode, with one line."""
    jobs = rig.jobs(1)
    event = stopped(jobs[0])
    steps = threading.Semaphore(0)
    done = []

    def step(job, will_retry):
        assert steps.acquire(timeout=PATIENCE)
        done.append(job)

    rig.hear_jobs(step)
    rig.voice.say(event)
    wait_until(lambda: rig.store.reads)
    for number in range(1, 4):
        rig.voice.say(*[event] * (MAX_WAITING_EVENTS + 5 if number == 1 else MAX_BATCH + 5))
        assert rig.health.report()["dropped_events"] == 5 * number
        taken = len(rig.store.reads)
        steps.release(1 if number == 1 else MAX_BATCH)
        wait_until(lambda taken=taken: len(rig.store.reads) > taken)
    assert len(caplog.records) == 1
    rig.listeners.of_jobs.clear()
    steps.release(MAX_BATCH)
    wait_until(lambda: len(caplog.records) == 2)
    assert caplog.records[1].getMessage().endswith("not told of 15 events")


# --- ending


def test_a_listener_may_end_the_delivery(rig, caplog):
    """Closing from within a listener waits for nobody: the event is told to the end, what follows is not delivered."""
    jobs = rig.jobs(3)

    def close(job, will_retry):
        rig.heard.append(job.id)
        rig.end()
        rig.end()

    rig.hear_jobs(close)
    rig.voice.say(*map(stopped, jobs))
    wait_until(lambda: not threads())
    assert rig.heard == [jobs[0].id]
    assert not caplog.records


def test_a_listener_that_blocks_is_named_and_left(rig, monkeypatch, caplog):
    """Closing waits for it for a while, says so, and goes on; once it comes back the thread ends."""
    monkeypatch.setattr("jobqueue.delivery._SECONDS_TO_JOIN", 0.05)
    go_on = rig.held()
    rig.end()
    assert "a listener has not come back within 0.05 s" in caplog.text
    assert threads()
    go_on()
    wait_until(lambda: not threads())


def test_after_the_end_nothing_is_heard():
    """Neither what is said afterwards nor what was waiting reaches a listener, and a new one is not subscribed."""
    rig = DeliveryRig()
    rig.hear_events()
    go_on = rig.held()
    receivers = [receive for receive, _ in rig.voice.subscribers]
    rig.voice.say(stopped(make_job()))
    rig.delivery.stop()
    for receive in receivers:
        receive(stopped(make_job()))
    go_on()
    rig.end()
    rig.hear_events()
    assert rig.heard[1:] == []
    assert rig.voice.kinds == []
    assert not threads()


def test_the_end_without_a_beginning(rig):
    """Who never had a listener has nothing to end, as often as it is ended."""
    for _ in range(2):
        rig.end()
    assert not threads()


def test_listeners_come_from_listeners(rig):
    """A listener may add and remove others while it hears; the new one hears the next event."""
    jobs = rig.jobs(2)

    def first(job, will_retry):
        rig.listeners.of_jobs.remove(first)
        rig.delivery.adjust()
        rig.hear_jobs()

    rig.hear_jobs(first)
    rig.voice.say(stopped(jobs[0]))
    wait_until(lambda: len(rig.listeners.of_jobs.all) == 1 and first not in rig.listeners.of_jobs.all)
    wait_until(lambda: rig.voice.kinds == ["JobStopped"])
    rig.voice.say(stopped(jobs[1]))
    wait_until(lambda: rig.heard)
    assert rig.heard == [(jobs[1].id, False)]


def test_an_error_of_a_listener_costs_no_event(rig, caplog):
    """Even SystemExit ends neither the thread nor the batch."""

    def leave(job, will_retry):
        raise SystemExit

    jobs = rig.jobs(5)
    rig.hear_jobs(leave)
    rig.hear_jobs()
    rig.voice.say(*map(stopped, jobs))
    wait_until(lambda: len(rig.heard) == 5)
    assert len(caplog.records) == 5


def test_stopping_amid_events():
    """However a stop falls between events, the thread ends at once."""
    event = stopped(make_job())
    for _ in range(50):
        rig = DeliveryRig()
        rig.hear_events()
        receive = rig.voice.subscribers[0][0]
        saying = threading.Thread(target=lambda receive=receive: [receive(event) for _ in range(200)])
        saying.start()
        rig.delivery.stop()
        wait_until(lambda: not threads())
        saying.join(PATIENCE)
