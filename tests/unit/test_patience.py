"""How long calls may wait when their caller is less patient than the backend."""

from math import inf

import pytest

from jobqueue.patience import patience, seconds_to_answer, seconds_to_connect
from tests.fixtures.waiting import wait_until


def test_without_a_word_the_backend_decides():
    """Nobody's patience is shorter than the backend's unless it is said to be."""
    assert (seconds_to_connect(30), seconds_to_answer(inf)) == (30, inf)
    with patience(None):
        assert (seconds_to_connect(30), seconds_to_answer(inf)) == (30, inf)


def test_patience_runs_out():
    """What is left of it is what both may take, together; the shorter of two is what counts, and an end is an end."""
    with patience(1.2):
        assert seconds_to_connect(0.1) == 0.1
        assert 1 < seconds_to_answer(inf) <= 1.2
        wait_until(lambda: seconds_to_connect(30) < 1.1)
        wait_until(lambda: seconds_to_answer(30) == 0)
    assert seconds_to_answer(30) == 30


@pytest.mark.parametrize("seconds", [0, -1, 0.5])
def test_a_second_is_granted(seconds):
    """Who wants to look once has a second for it."""
    with patience(seconds):
        assert 0.9 < seconds_to_connect(30) <= 1
