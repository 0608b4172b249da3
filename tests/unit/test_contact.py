"""The contact of a pool to its database: which failures say that it is lost."""

import logging
from datetime import timedelta

import pytest

from jobqueue.errors import LockTimeoutError, UnavailableError
from jobqueue.health import Health
from jobqueue.worker.contact import Contact

GONE = UnavailableError("gone")


@pytest.fixture
def vital():
    return Health().vital("workers")


@pytest.fixture
def contact(vital):
    return Contact(vital, timedelta(seconds=60))


def fail(contact, error=GONE):
    with pytest.raises(type(error)), contact.watched():
        raise error


def lines(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_each_change_of_state_is_logged_once(contact, vital, caplog):
    """Failures in a row are one loss, and the first success after them is one recovery."""
    caplog.set_level(logging.INFO)
    for _ in range(3):
        fail(contact)
    assert vital.is_down
    for _ in range(3):
        with contact.watched():
            pass
    assert not vital.is_down
    assert lines(caplog) == [
        ("WARNING", "the database does not answer, trying again: gone"),
        ("WARNING", "the database answers again"),
    ]


def test_a_late_failure_is_no_news(contact, vital, caplog):
    """A call that began before others were answered says nothing about now when it fails; the next one does."""

    def fail_late():
        with contact.watched():
            with contact.watched():
                pass
            raise GONE

    with pytest.raises(UnavailableError):
        fail_late()
    assert not vital.is_down
    assert lines(caplog) == []
    fail(contact)
    assert vital.is_down


def test_other_errors_are_answers_of_a_kind(contact, vital):
    """A lock that was not to be had neither loses the contact nor restores it."""
    fail(contact, LockTimeoutError("held"))
    assert not vital.is_down
    fail(contact)
    fail(contact, LockTimeoutError("held"))
    assert vital.is_down
