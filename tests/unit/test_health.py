"""What the parts of a service say of themselves."""

import time
from datetime import timedelta

import pytest

from jobqueue.errors import LockTimeoutError, RefusedError, UnavailableError
from jobqueue.health import DOWN, UP, Health
from jobqueue.worker.contact import Contact
from tests.fixtures.waiting import wait_until

MOMENT = timedelta(milliseconds=50)


def test_a_vital_begins_up():
    """Nothing has failed yet."""
    vital = Health().vital("listener")
    assert not vital.is_down
    assert vital.report()["state"] == UP
    assert vital.report()["last_error"] is None


def test_only_changes_are_news():
    """The first failure and the first success after it are told of, what follows is not."""
    vital = Health().vital("listener")
    assert [vital.succeeded(), vital.failed(OSError()), vital.failed(OSError())] == [False, True, False]
    assert [vital.succeeded(), vital.succeeded()] == [True, False]


def test_a_report_keeps_the_last_error():
    """A failure shows the class of its error, also after it is over, and since when the state holds."""
    vital = Health().vital("listener")
    before = vital.report()["since"]
    vital.failed(OSError("secret"))
    failed = vital.report()
    assert (failed["state"], failed["last_error"]) == (DOWN, "OSError")
    assert failed["since"] >= before
    vital.failed(ValueError())
    assert vital.report()["since"] == failed["since"]
    vital.succeeded()
    assert (vital.report()["state"], vital.report()["last_error"]) == (UP, "ValueError")


def test_up_for_counts_from_the_last_recovery():
    """While something fails it is up for no time, and counts anew after that."""
    vital = Health().vital("listener")
    wait_until(lambda: vital.up_for() > 0.02)
    failed_at = time.monotonic()
    vital.failed(OSError())
    assert vital.up_for() == 0
    vital.succeeded()
    assert vital.up_for() <= time.monotonic() - failed_at


def test_health_reports_counts_and_parts():
    """Counts are there from the beginning, parts from when somebody asks for them."""
    health = Health()
    assert health.report() == {"lost_claims": 0, "refused_outcomes": 0, "dropped_events": 0, "parts": {}}
    health.count("lost_claims")
    health.count("lost_claims", 2)
    assert health.vital("workers") is health.vital("workers")
    assert health.report()["lost_claims"] == 3
    assert list(health.report()["parts"]) == ["workers"]


def test_losses_and_other_errors_are_told():
    """The function for errors hears of each error, and of the first failure in a row; the one that was set last."""
    health, told, error = Health(), [], OSError()
    health.tell_of(ValueError("nobody hears this"))
    health.set_on_error(lambda _: pytest.fail("was replaced"))
    health.set_on_error(told.append)
    health.tell_of(error)
    vital = health.vital("listener")
    for _ in range(3):
        vital.failed(error)
    vital.succeeded()
    vital.failed(error)
    assert told == [error] * 3
    health.set_on_error(None)
    health.tell_of(error)
    assert len(told) == 3


def test_what_is_told_of_errors_must_be_callable():
    """A wrong value is refused when it is set, and what was set before stays."""
    health, told = Health(), []
    health.set_on_error(told.append)
    with pytest.raises(TypeError, match="callable"):
        health.set_on_error("print")
    health.tell_of(OSError())
    assert len(told) == 1


def test_an_error_while_an_error_is_told_is_logged(caplog):
    """Nothing that the function for errors raises reaches the thread that told it."""
    health = Health()

    def fail(_):
        raise KeyboardInterrupt

    health.set_on_error(fail)
    assert health.vital("listener").failed(OSError())
    assert [record.getMessage() for record in caplog.records] == ["the function for errors failed on OSError"]


def test_contact_is_dead_after_a_silence():
    """One failure is no death; failures for as long as others wait before they take our jobs away are."""
    contact = Contact(Health().vital("workers"), MOMENT)
    with pytest.raises(UnavailableError), contact.watched():
        raise UnavailableError("gone")
    wait_until(lambda: contact.is_dead)
    with contact.watched():
        pass
    assert not contact.is_dead


def test_contact_that_nobody_has_tried_is_not_dead():
    """A pool that had no reason to speak to the database is not cut off from it."""
    contact = Contact(Health().vital("workers"), MOMENT)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 2 * MOMENT.total_seconds())
    assert not contact.is_dead


def test_contact_is_steady_when_nothing_failed_for_long_enough():
    """Who was cut off must listen for as long as the others may be silent before judging them."""
    contact = Contact(Health().vital("workers"), MOMENT)
    wait_until(lambda: contact.is_steady)
    with pytest.raises(UnavailableError), contact.watched():
        raise UnavailableError("gone")
    assert not contact.is_steady
    answered_at = time.monotonic()
    with contact.watched():
        pass
    wait_until(lambda: contact.is_steady)
    assert time.monotonic() - answered_at >= MOMENT.total_seconds()


@pytest.mark.parametrize("error", [LockTimeoutError("locked"), RefusedError("no")])
def test_a_refusal_is_an_answer(error):
    """A database that says no is there."""
    vital = Health().vital("workers")
    with pytest.raises(type(error)), Contact(vital, MOMENT).watched():
        raise error
    assert not vital.is_down


def test_each_change_of_contact_is_logged_once(caplog):
    """However often calls fail, the log has one line for the loss and one for the return."""
    caplog.set_level("INFO")
    contact = Contact(Health().vital("workers"), MOMENT)
    for _ in range(3):
        with pytest.raises(UnavailableError), contact.watched():
            raise UnavailableError("gone")
    for _ in range(3):
        with contact.watched():
            pass
    assert [record.getMessage() for record in caplog.records] == [
        "the database does not answer, trying again: gone",
        "the database answers again",
    ]
