"""The clock that tests move: what goes by it while it is in force, and that it never goes back."""

import threading
from contextvars import copy_context
from datetime import UTC, datetime, timedelta

import pytest

import jobqueue
from jobqueue import InvalidJobError, Job
from jobqueue.clock import present
from jobqueue.testing import Clock

START = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_stands_still_until_it_is_moved():
    """It says what it was set to, and then what it was moved to."""
    clock = Clock(START)
    assert clock.now() == START
    assert clock.advance(hours=1, minutes=30) == clock.now() == START + 1.5 * HOUR
    assert clock.advance(HOUR) == START + 2.5 * HOUR
    assert clock.move_to(START + 3 * HOUR) == START + 3 * HOUR
    assert clock.move_to(clock.now()) == START + 3 * HOUR


@pytest.mark.parametrize("move", [lambda clock: clock.advance(-HOUR), lambda clock: clock.move_to(START - HOUR)])
def test_never_goes_back(move):
    """To move it back is an error, and leaves it where it is."""
    clock = Clock(START)
    with pytest.raises(ValueError, match="never goes back"):
        move(clock)
    assert clock.now() == START


@pytest.mark.parametrize(("by", "parts"), [(None, {}), (HOUR, {"hours": 1}), (3, {}), (None, {"fortnights": 1})])
def test_advance_takes_one_duration(by, parts):
    """A duration, or its parts: neither, both, or anything else is a TypeError."""
    with pytest.raises(TypeError):
        Clock(START).advance(by, **parts)


def test_moments_have_time_zones():
    """Naive moments are refused, as everywhere."""
    naive = datetime(2030, 1, 1)  # noqa: DTZ001
    with pytest.raises(InvalidJobError, match="start"):
        Clock(naive)
    with pytest.raises(InvalidJobError, match="moment"):
        Clock(START).move_to(naive)


def test_all_of_an_enqueued_job_goes_by_it():
    """When it was added and when it is due, and the state that follows; and after the block, the real time again."""
    with jobqueue.connect("memory://") as service:
        with Clock(START) as clock:
            job = service.get_job(service.enqueue("t", 1, delay=HOUR).id)
            assert (job.created_at, job.start_at, job.state) == (START, START + HOUR, "scheduled")
            clock.advance(HOUR)
            assert job.state == "available"
        assert job.state == ("scheduled" if datetime.now(UTC) < START else "available")


def test_keys_are_held_by_it():
    """A key that is held for an hour is free when the clock says so."""
    with jobqueue.connect("memory://") as service, Clock(START) as clock:
        first = service.enqueue("t", 1, unique_key="k", unique_for=HOUR)
        assert service.enqueue("t", 2, unique_key="k", unique_for=HOUR) == first
        clock.advance(HOUR)
        assert service.enqueue("t", 3, unique_key="k", unique_for=HOUR) != first


def test_is_in_force_in_its_thread_only():
    """Other threads, and contexts that outlive the block, go by the real time."""
    moments = []
    with Clock(START):
        kept = copy_context()
        thread = threading.Thread(target=lambda: moments.append(present()))
        thread.start()
        thread.join()
        assert present() == START
    moments += [kept.run(present), present()]
    assert all(abs(moment - datetime.now(UTC)) < HOUR for moment in moments)


def test_blocks_nest():
    """The innermost clock counts; the same one may be entered twice."""
    with Clock(START) as outer:
        with Clock(START + HOUR), outer:
            assert present() == START
        assert present() == START


def test_moments_of_the_past_and_jobs_from_before():
    """A job that was enqueued by the real time is judged by the clock."""
    job = Job.new("t", 1, start_at=START)
    with Clock(START - HOUR) as clock:
        assert job.state == "scheduled"
        clock.advance(HOUR)
        assert job.state == "available"
