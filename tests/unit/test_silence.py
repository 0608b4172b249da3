"""When the silence of others counts, by looks at the database's clock."""

from datetime import UTC, datetime, timedelta

import pytest

from jobqueue.worker.silence import Silence

START = datetime(2030, 1, 1, tzinfo=UTC)
DEAD_FOR = timedelta(seconds=60)


def looks(*seconds: float) -> list[bool]:
    """Look at a clock that shows one time after the other."""
    silence = Silence(DEAD_FOR)
    return [silence.counts_at(START + timedelta(seconds=second)) for second in seconds]


def test_who_begins_to_listen_must_listen_for_long_enough():
    """Silence counts once the clock was watched for dead_for, not at the first look, whatever time it is."""
    assert looks(0, 20, 40, 59, 60, 80) == [False] * 4 + [True] * 2


@pytest.mark.parametrize("leap", [41, 3600, -1])
def test_a_leap_of_the_clock(leap):
    """After a step of more than two thirds of dead_for, or back, the time begins anew; looks go on from there."""
    after = 80 + leap
    assert looks(0, 40, 80, after, after + 40, after + 60) == [False, False, True, False, False, True]


def test_steps_that_silence_nobody():
    """A step of two thirds of dead_for is no leap: whoever beats every third of it is not silent for so long."""
    assert looks(0, 40, 80, 120) == [False, False, True, True]


def test_one_leap_after_the_other():
    """Who is frozen again and again never takes anything away."""
    assert looks(*range(0, 1000, 50)) == [False] * 20
