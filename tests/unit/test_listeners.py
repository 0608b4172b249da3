"""Who is told what, in which order, and what one listener can do to the others: nothing."""

import attrs
import pytest

from jobqueue.events import JobBundleStopped, JobStopped
from jobqueue.health import Health
from jobqueue.listeners import Listeners, ServiceListener
from jobqueue.models import new_id
from tests.fixtures.listeners import BUNDLE, BUNDLE_STOPPED, JOB, JOB_STOPPED, Everything, Heard


@pytest.fixture
def health():
    return Health()


@pytest.fixture
def listeners(health):
    return Listeners(health)


# --- who is told what


def test_a_service_listener_hears_the_event_and_nothing_is_read_for_it(listeners):
    """It gets id, type and origin, of jobs also whether they will be retried; no job or bundle is wanted for it."""
    listener = Everything()
    listeners.of_service.add(listener)
    assert listeners.kinds == {JobStopped, JobBundleStopped}
    assert not listeners.want(JOB_STOPPED)
    assert not listeners.want(BUNDLE_STOPPED)
    for event in (JOB_STOPPED, attrs.evolve(JOB_STOPPED, will_retry=True), BUNDLE_STOPPED):
        listeners.tell_event(event)
    assert listener.calls == [
        ("job", JOB.id, "t", "o", False),
        ("job", JOB.id, "t", "o", True),
        ("bundle", BUNDLE.id, "b", "o"),
    ]


def test_a_service_listener_overrides_what_interests_it(listeners, caplog):
    """What a listener does not override does nothing."""

    class OnlyBundles(ServiceListener):
        heard = 0

        def on_job_bundle_stopped(self, *_: object) -> None:
            self.heard += 1

    listener = OnlyBundles()
    listeners.of_service.add(listener)
    listeners.tell_event(JOB_STOPPED)
    listeners.tell_event(BUNDLE_STOPPED)
    assert listener.heard == 1
    assert not caplog.records


def test_a_job_listener_hears_the_job_and_whether_it_will_be_retried(listeners):
    """Jobs are wanted, and told of with will_retry; bundles are not."""
    heard = []
    listeners.of_jobs.add(lambda job, will_retry: heard.append((job, will_retry)))
    assert listeners.kinds == {JobStopped}
    assert listeners.want(JOB_STOPPED)
    assert not listeners.want(BUNDLE_STOPPED)
    for will_retry in (True, False):
        listeners.tell_job(JOB, will_retry=will_retry)
    assert heard == [(JOB, True), (JOB, False)]


def test_bundle_listeners_come_before_the_one_of_the_type(listeners):
    """First all listeners for bundles hear of a bundle, in their order, then the one for its type, and no other."""
    heard = Heard()
    listeners.set_of_bundle_type("b", heard.noting("of type"))
    listeners.set_of_bundle_type("other", heard.noting("of other type"))
    for name in ("first", "second"):
        listeners.of_bundles.add(heard.noting(name))
    listeners.tell_bundle(BUNDLE)
    assert heard == ["first", "second", "of type"]


def test_the_listener_of_a_type_is_replaced(listeners):
    """There is one listener for a type: the last that was set; removing it again changes nothing."""
    heard = Heard()
    for name in ("first", "second"):
        listeners.set_of_bundle_type("b", heard.noting(name))
    assert listeners.kinds == {JobBundleStopped}
    listeners.tell_bundle(BUNDLE)
    assert heard == ["second"]
    for _ in range(2):
        listeners.remove_of_bundle_type("b")
        assert not listeners.kinds
    listeners.tell_bundle(BUNDLE)
    assert heard == ["second"]


def test_all_listeners_for_bundles_are_removed_together(listeners):
    """Those for types are among them; those for jobs are not."""
    heard = Heard()
    listeners.of_bundles.add(heard.noting("all"))
    listeners.set_of_bundle_type("b", heard.noting("of type"))
    listeners.of_jobs.add(heard.noting("job"))
    listeners.clear_of_bundles()
    assert listeners.kinds == {JobStopped}
    listeners.tell_bundle(BUNDLE)
    listeners.tell_job(JOB, will_retry=False)
    assert heard == ["job"]


def test_a_bundle_that_is_not_stored_is_told_to_all(listeners):
    """As in tests of applications: listeners of both levels hear of it."""
    listener, heard = Everything(), Heard()
    listeners.of_service.add(listener)
    listeners.of_bundles.add(heard.append)
    listeners.tell_bundle_stopped(BUNDLE)
    assert listener.calls == [("bundle", BUNDLE.id, "b", "o")]
    assert heard == [BUNDLE]


# --- errors


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_of_a_listener_goes_no_further(listeners, health, caplog, error):
    """It is logged once, told to on_error once, and the next listener is called."""
    told, heard = [], Heard()
    health.set_on_error(told.append)

    class Failing(ServiceListener):
        def on_job_stopped(self, *_: object) -> None:
            raise error

    def fail(*_: object) -> None:
        raise error

    for listener in (Failing(), Everything()):
        listeners.of_service.add(listener)
    for group in (listeners.of_jobs, listeners.of_bundles):
        for listener in (fail, heard.noting("next")):
            group.add(listener)
    listeners.set_of_bundle_type("b", fail)
    listeners.tell_event(JOB_STOPPED)
    listeners.tell_job(JOB, will_retry=False)
    listeners.tell_bundle(BUNDLE)
    assert told == [error] * 4
    assert heard == ["next"] * 2
    assert len(listeners.of_service.all[1].calls) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"a listener failed on event of {JOB.id}",
        f"a listener failed on job {JOB.id}",
        *[f"a listener failed on bundle {BUNDLE.id}"] * 2,
    ]
    assert all(record.exc_info[1] is error for record in caplog.records)


def test_an_error_of_on_error_goes_no_further(listeners, health, caplog):
    """What the function for errors raises is logged beside the error that it was told."""
    heard = Heard()

    def fail(*_: object) -> None:
        raise SystemExit

    health.set_on_error(fail)
    for listener in (fail, heard.noting("next")):
        listeners.of_jobs.add(listener)
    listeners.tell_job(JOB, will_retry=False)
    assert heard == ["next"]
    assert [record.getMessage() for record in caplog.records] == [
        f"a listener failed on job {JOB.id}",
        "the function for errors failed on SystemExit",
    ]


def test_an_event_of_an_unknown_job_is_told(listeners):
    """Ids are not looked up for those who want no more than the event."""
    listener = Everything()
    listeners.of_service.add(listener)
    listeners.tell_event(JobStopped(id=(unknown := new_id()), type="t", origin="o", will_retry=False))
    assert listener.calls == [("job", unknown, "t", "o", False)]
