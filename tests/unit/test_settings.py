"""Worker settings: defaults, and what is refused."""

from datetime import timedelta

import attrs
import pytest

from jobqueue.settings import WorkerSettings

ZERO = timedelta(0)
TICK = timedelta.resolution


def seconds(n):
    return timedelta(seconds=n)


def test_the_defaults():
    """Beats every 10 s, dead after 60 s, 15 min for a run, polls every 5 s, 3 rescues."""
    settings = WorkerSettings()
    assert settings.heartbeat_interval == seconds(10)
    assert settings.dead_for == seconds(60)
    assert settings.job_timeout == timedelta(minutes=15)
    assert settings.poll_interval == seconds(5)
    assert settings.max_rescues == 3


@pytest.mark.parametrize("name", ["heartbeat_interval", "job_timeout"])
@pytest.mark.parametrize("off", [None, ZERO])
def test_zero_and_none_turn_it_off(name, off):
    """Heartbeats and the job timeout are turned off by None and by zero alike."""
    assert getattr(WorkerSettings(**{name: off}), name) is None


@pytest.mark.parametrize("name", ["dead_for", "poll_interval"])
@pytest.mark.parametrize("value", [ZERO, -TICK])
def test_waits_must_be_longer_than_zero(name, value):
    """What cannot be turned off must be longer than zero."""
    with pytest.raises(ValueError, match=f"{name} must be longer than zero"):
        WorkerSettings(heartbeat_interval=None, **{name: value})


@pytest.mark.parametrize("name", ["heartbeat_interval", "job_timeout"])
def test_no_duration_is_negative(name):
    """What can be turned off is not turned off by less than zero."""
    with pytest.raises(ValueError, match=f"{name} must be longer than zero"):
        WorkerSettings(**{name: -TICK})


def test_dead_for_is_at_least_three_heartbeats():
    """Three heartbeats are enough, a microsecond less is refused."""
    assert WorkerSettings(heartbeat_interval=seconds(10), dead_for=seconds(30)).dead_for == seconds(30)
    with pytest.raises(ValueError, match="three times heartbeat_interval"):
        WorkerSettings(heartbeat_interval=seconds(10), dead_for=seconds(30) - TICK)


def test_without_heartbeats_any_dead_for_goes():
    """Without heartbeats there is nothing that dead_for could be too short for."""
    assert WorkerSettings(heartbeat_interval=ZERO, dead_for=TICK).dead_for == TICK


@pytest.mark.parametrize(("name", "least"), [("batch_size", 1), ("max_rescues", 0)], ids=str)
def test_the_least_of_each_number(name, least):
    """Every number has a least value; one below it is refused by name."""
    assert getattr(WorkerSettings(**{name: least}), name) == least
    with pytest.raises(ValueError, match=name):
        WorkerSettings(**{name: least - 1})


def test_settings_cannot_be_changed():
    """Settings are values: a change makes other ones."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        WorkerSettings().max_rescues = 5
    assert attrs.evolve(WorkerSettings(), max_rescues=5).max_rescues == 5
