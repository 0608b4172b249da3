"""How events come to listeners: in one thread, in order, with few reads, none lost while the database is away."""

import threading
from math import ceil

import pytest

import jobqueue
import jobqueue.testing
from jobqueue.delivery import MAX_BATCH
from jobqueue.errors import (
    BackendError,
    ClosedError,
    JobQueueError,
    LockTimeoutError,
    RefusedError,
    SchemaError,
    UnavailableError,
)
from jobqueue.events import ClaimLost, Connected, JobAvailable
from jobqueue.job_context import JobContext, current_job_context
from jobqueue.models import Job, new_id
from jobqueue.threads import Backoff
from tests.fixtures.delivering import PATIENCE, DeliveryRig, Voice, bundle_stopped, stopped, threads
from tests.fixtures.stores import make_bundle
from tests.fixtures.waiting import wait_until


@pytest.fixture
def rig():
    made = DeliveryRig()
    yield made
    made.end()


# --- who hears, and when


def test_events_are_delivered_in_order(rig):
    """Jobs come in the order of their events, each with its will_retry, in one thread, as they are by then."""
    jobs = rig.jobs(5)
    names = set()
    rig.hear_jobs()
    rig.hear_jobs(lambda job, will_retry: names.add(threading.current_thread().name))
    events = [stopped(job, will_retry=number % 2 == 0) for number, job in enumerate(jobs)]
    rig.voice.say(*events, *events)
    wait_until(lambda: len(rig.heard) == 10)
    assert rig.heard == [(event.id, event.will_retry) for event in events] * 2
    assert names == {"jobqueue-events"}


def test_bundles_and_jobs_keep_their_order(rig):
    """The end of a bundle is delivered after the end of its last member, and with its members."""
    bundle = make_bundle(2)
    rig.store.add_bundle(bundle)
    rig.hear_jobs()
    rig.hear_bundles(lambda found: rig.heard.append((found.id, found.jobs)))
    rig.voice.say(*map(stopped, bundle.jobs), bundle_stopped(bundle))
    wait_until(lambda: len(rig.heard) == 3)
    assert rig.heard == [*((job.id, False) for job in bundle.jobs), (bundle.id, bundle.jobs)]


def test_only_what_is_wanted_is_subscribed_to():
    """Each kind is heard from its first listener to its last; without a listener there is no thread either."""
    rig = DeliveryRig()
    rig.delivery.adjust()
    assert (rig.voice.kinds, threads()) == ([], [])
    first, second, of_bundles = rig.hear_jobs(), rig.hear_jobs(), rig.hear_bundles()
    assert rig.voice.kinds == ["JobBundleStopped", "JobStopped"]
    for group, listener, left in (
        (rig.listeners.of_jobs, first, ["JobBundleStopped", "JobStopped"]),
        (rig.listeners.of_jobs, second, ["JobBundleStopped"]),
        (rig.listeners.of_bundles, of_bundles, []),
    ):
        group.remove(listener)
        rig.delivery.adjust()
        assert rig.voice.kinds == left
    rig.hear_jobs()
    assert rig.voice.kinds == ["JobStopped"]
    rig.end()
    assert rig.voice.kinds == []
    assert not threads()


def test_adding_waits_for_the_connection(monkeypatch):
    """Every call that adds a listener, not only the one that subscribes, returns when the listener will hear."""
    monkeypatch.setattr("jobqueue.delivery._SECONDS_TO_CONNECT", 60)
    rig = DeliveryRig(Voice(connects=False))
    adding = [threading.Thread(target=rig.hear_jobs) for _ in range(3)]
    for thread in adding:
        thread.start()
    wait_until(lambda: len(rig.listeners.of_jobs.all) == 3 and rig.voice.kinds == ["JobStopped"])
    assert not threading.Event().wait(0.1)
    assert all(thread.is_alive() for thread in adding)
    rig.voice.connect()
    for thread in adding:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    rig.end()


def test_adding_gives_up_waiting_for_the_database(rig, monkeypatch, caplog):
    """It says that nothing is heard yet; what is said after the connection is heard even so. Removing never waits."""
    monkeypatch.setattr("jobqueue.delivery._SECONDS_TO_CONNECT", 0.05)
    rig.voice.connects = rig.voice.is_listening = False
    rig.hear_jobs()
    assert "will hear nothing until the database answers" in caplog.text
    caplog.clear()
    of_bundles = rig.hear_bundles()
    rig.listeners.of_bundles.remove(of_bundles)
    monkeypatch.setattr("jobqueue.delivery._SECONDS_TO_CONNECT", 60)
    rig.delivery.adjust()
    rig.voice.connect()
    [job] = rig.jobs()
    rig.voice.say(stopped(job))
    wait_until(lambda: rig.heard == [(job.id, False)])


def test_closing_ends_a_wait_for_the_connection(caplog, monkeypatch):
    """Who is adding a listener while the service is closed does not wait for nothing."""
    monkeypatch.setattr("jobqueue.delivery._SECONDS_TO_CONNECT", 60)
    rig = DeliveryRig(Voice(connects=False))
    adding = threading.Thread(target=rig.hear_jobs)
    adding.start()
    wait_until(lambda: rig.voice.kinds)
    rig.end()
    adding.join(PATIENCE)
    assert not adding.is_alive()
    assert not caplog.records


def test_a_notifier_that_never_hears_is_refused():
    """When nothing can ever be heard a listener is refused, and is not there: it would wait in vain."""
    rig = DeliveryRig()
    rig.voice.is_listening = False
    for add in (rig.hear_jobs, rig.hear_bundles):
        with pytest.raises(JobQueueError, match="polls only"):
            add()
    assert not rig.listeners.kinds
    assert rig.voice.kinds == []
    rig.end()


def test_a_closed_notifier_is_refused():
    """A listener that came too late is not there."""
    rig = DeliveryRig()
    rig.voice.closed = True
    with pytest.raises(ClosedError):
        rig.hear_jobs()
    assert not rig.listeners.kinds
    rig.end()


def test_other_events_are_not_for_listeners(rig):
    """Connections and what concerns workers are passed over."""
    [job] = rig.jobs()
    rig.hear_events()
    for receive, _ in rig.voice.subscribers:
        for event in (
            Connected(),
            JobAvailable(id=new_id(), type="t", origin="o"),
            ClaimLost(id=new_id(), claim_id=new_id()),
        ):
            receive(event)
    rig.voice.say(stopped(job))
    wait_until(lambda: rig.heard)
    assert rig.heard == [job.id]


# --- reading


def test_many_events_cost_few_reads(rig):
    """N events that wait are N/100 reads, rounded up, however many listeners there are."""
    jobs = rig.jobs(250)
    go_on = rig.held()
    for _ in range(3):
        rig.hear_jobs()
    rig.voice.say(*map(stopped, jobs))
    go_on()
    wait_until(lambda: len(rig.heard) == 3 * len(jobs))
    assert len(rig.store.reads) == ceil(len(jobs) / MAX_BATCH) == 3
    assert rig.heard == [(job.id, False) for job in jobs for _ in range(3)]


def test_a_job_that_stops_often_is_read_once(rig):
    """Several events of one job in a batch are one row to read."""
    [job] = rig.jobs()
    go_on = rig.held()
    rig.hear_jobs()
    rig.voice.say(*[stopped(job)] * 5)
    go_on()
    wait_until(lambda: len(rig.heard) == 5)
    assert rig.store.reads == [[job.id]]


def test_nothing_is_read_for_those_who_want_events(rig):
    """Service listeners cost no read, neither for jobs nor for bundles."""
    rig.hear_events()
    jobs, bundle = rig.jobs(150), make_bundle()
    rig.voice.say(*map(stopped, jobs), bundle_stopped(bundle))
    wait_until(lambda: len(rig.heard) == 151)
    assert rig.heard == [*(job.id for job in jobs), bundle.id]
    assert rig.store.reads == []


def test_what_was_deleted_is_passed_over(rig, caplog):
    """A job or bundle that is gone when its event is delivered is told to nobody, and is no error."""
    gone, [there] = make_bundle(), rig.jobs()
    rig.hear_jobs()
    rig.hear_bundles()
    rig.voice.say(stopped(gone.jobs[0]), bundle_stopped(gone), stopped(there))
    wait_until(lambda: rig.heard)
    assert rig.heard == [(there.id, False)]
    assert not caplog.records


@pytest.mark.parametrize("error", [UnavailableError("gone"), LockTimeoutError("locked")])
def test_nothing_is_lost_while_the_database_is_away(rig, caplog, error):
    """Events wait for their jobs and bundles; the log and health() have one line each for the loss and the return."""
    caplog.set_level("INFO")
    told = []
    rig.health.set_on_error(told.append)
    bundle, jobs = make_bundle(1), rig.jobs(3)
    rig.store.add_bundle(bundle)
    rig.hear_jobs()
    rig.hear_bundles()
    rig.store.away = error
    rig.voice.say(stopped(jobs[0]), bundle_stopped(bundle), stopped(jobs[1]))
    wait_until(lambda: len(rig.store.reads) >= 3)
    assert rig.part() == "down"
    rig.voice.say(stopped(jobs[2]))
    rig.store.away = None
    wait_until(lambda: len(rig.heard) == 4)
    assert rig.heard == [(jobs[0].id, False), bundle.id, (jobs[1].id, False), (jobs[2].id, False)]
    assert rig.part() == "up"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert told == [error]


def test_an_outage_does_not_hold_up_the_end(rig, caplog, monkeypatch):
    """While the database is away, closing takes no longer than otherwise, and is no error."""
    monkeypatch.setattr("jobqueue.delivery.Backoff", lambda: Backoff(first=60, cap=60))
    [job] = rig.jobs()
    rig.hear_jobs()
    rig.store.away = UnavailableError("gone")
    rig.voice.say(stopped(job))
    wait_until(lambda: caplog.records)
    caplog.clear()
    rig.delivery.stop()
    wait_until(lambda: not threads())
    assert not caplog.records


def test_a_store_that_is_closed_meanwhile_is_no_error(rig, caplog):
    """What a read raises when the service has closed is nobody's concern."""
    [job] = rig.jobs()
    rig.hear_jobs()

    def close_and_fail(ids):
        rig.delivery.stop()
        raise ClosedError("the service was closed")

    rig.store.get_jobs = close_and_fail
    rig.voice.say(stopped(job))
    wait_until(lambda: not threads())
    assert not caplog.records


def test_a_job_that_cannot_be_read_costs_nobody_else(rig, caplog):
    """The other jobs of its batch are delivered, in order; the error is logged and told once."""
    told = []
    rig.health.set_on_error(told.append)
    jobs = rig.jobs(20)
    rig.store.unreadable = {jobs[3].id, jobs[7].id}
    go_on = rig.held()
    rig.hear_jobs()
    rig.voice.say(*map(stopped, jobs))
    go_on()
    wait_until(lambda: len(rig.heard) == 18)
    assert rig.heard == [(job.id, False) for job in jobs if job.id not in rig.store.unreadable]
    assert [record.getMessage() for record in caplog.records] == [
        "listeners are not told of 2 jobs, which cannot be read"
    ]
    assert [type(error) for error in told] == [ValueError]


def test_a_bundle_that_cannot_be_read_costs_nobody_else(rig, caplog):
    """Service listeners hear of it all the same, and what follows is delivered."""
    first, second = make_bundle(1), make_bundle(1)
    for bundle in (first, second):
        rig.store.add_bundle(bundle)
    rig.store.unreadable = {first.id}
    rig.hear_events()
    rig.hear_bundles(lambda bundle: rig.heard.append("read"))
    rig.voice.say(bundle_stopped(first), bundle_stopped(second))
    wait_until(lambda: len(rig.heard) == 3)
    assert rig.heard == [first.id, second.id, "read"]
    assert f"listeners are not told of bundle {first.id}, which cannot be read" in caplog.text


def test_a_refusal_is_tried_singly_once(rig, caplog):
    """When the database refuses every read, each is made once; later events are delivered again."""
    jobs = rig.jobs(3)
    rig.store.failures.extend([RefusedError("no")] * 3)
    go_on = rig.held()
    rig.hear_jobs()
    rig.voice.say(*map(stopped, jobs[:2]))
    go_on()
    wait_until(lambda: not rig.store.failures)
    rig.voice.say(stopped(jobs[2]))
    wait_until(lambda: rig.heard)
    assert rig.heard == [(jobs[2].id, False)]
    assert len(rig.store.reads) == 4


@pytest.mark.parametrize("error", [BackendError("permission denied for table job"), SchemaError("no table job")])
def test_tables_that_cannot_be_read_are_told_of_once(rig, caplog, error):
    """Nothing is read singly then, and no traceback logged; when they can be read, listeners are told again."""
    told = []
    rig.health.set_on_error(told.append)
    bundle, jobs = make_bundle(1), rig.jobs(5)
    rig.store.add_bundle(bundle)
    go_on = rig.held()
    rig.hear_jobs()
    rig.hear_bundles()
    rig.hear_events()
    rig.store.away = error
    rig.voice.say(*map(stopped, jobs[:4]), bundle_stopped(bundle))
    go_on()
    wait_until(lambda: rig.heard == [*(job.id for job in jobs[:4]), bundle.id])
    wait_until(lambda: len(rig.store.reads) == 2)
    assert rig.part() == "down"
    rig.store.away = None
    rig.voice.say(stopped(jobs[4]))
    wait_until(lambda: rig.heard[-1] == (jobs[4].id, False))
    assert rig.part() == "up"
    first, second = caplog.records
    assert (first.levelname, first.exc_info, second.levelname) == ("ERROR", None, "WARNING")
    assert str(error) in first.getMessage()
    assert "listeners go on" in second.getMessage()
    assert told == [error]


# --- where listeners are


def test_listeners_are_in_the_context_of_their_service():
    """Whoever adds the first one, and wherever: a listener works on its service, in no handler and in no test mode."""
    with jobqueue.connect("memory://") as service, jobqueue.connect("memory://") as other:
        job, found = service.enqueue("t", 1), []

        def look(*_):
            found.append((jobqueue.current_service(), jobqueue.current_job(), jobqueue.enqueue("by the listener", 1)))

        token = current_job_context.set(JobContext(Job.new("t", 1)))
        with jobqueue.use_service(other), jobqueue.testing.ignore_jobs() as ignored:
            service.add_job_stopped_listener(look)
            service.cancel_job(job.id)
            wait_until(lambda: found)
        current_job_context.reset(token)
        [(current, current_job, added)] = found
        assert current is service
        assert current_job is None
        assert ignored == []
        assert service.get_job(added.id) == added
