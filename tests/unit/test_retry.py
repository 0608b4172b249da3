"""Retry policies: how long to wait before which retry."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.retry import DEFAULT_POLICY, Exponential, Fixed, Never, RetryPolicy

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("retry", [1, 2, 1000])
def test_never_gives_up(retry):
    """Never gives up before any retry."""
    assert Never().delay_before(retry) is None


@pytest.mark.parametrize("delay", [timedelta(0), SECOND, timedelta.max])
@pytest.mark.parametrize("retry", [1, 2, 1000])
def test_fixed_waits_equally_long(delay, retry):
    """Fixed waits equally long before every retry; not at all is a length, too."""
    assert Fixed(delay).delay_before(retry) == delay


@pytest.mark.parametrize(("retry", "seconds"), [(1, 1), (2, 2), (3, 4), (12, 2048), (13, 3600), (14, 3600)])
def test_exponential_doubles_up_to_the_cap(retry, seconds):
    """Without jitter, each wait is twice the one before, until the cap is reached."""
    assert Exponential(jitter=False).delay_before(retry) == timedelta(seconds=seconds)


def test_exponential_grows_by_its_factor():
    """The factor says how much longer each wait is than the one before."""
    policy = Exponential(base=2 * SECOND, factor=1.5, jitter=False)
    assert [policy.delay_before(retry) for retry in (1, 2, 3)] == [2 * SECOND, 3 * SECOND, 4.5 * SECOND]


def test_exponential_of_factor_1_stays_at_its_base():
    """A factor of 1 is allowed, and never grows."""
    assert Exponential(factor=1, jitter=False).delay_before(2**31) == SECOND


@pytest.mark.parametrize("retry", [64, 1024, 1025, 2**31 - 1, 10**400])
def test_exponential_reaches_its_cap_without_overflow(retry):
    """However high the retry's number is, the wait is the cap."""
    assert Exponential(jitter=False).delay_before(retry) == HOUR
    assert Exponential(cap=timedelta.max, factor=1e300, jitter=False).delay_before(retry) == timedelta.max


def test_jitter_spreads_over_the_whole_wait(monkeypatch):
    """Full jitter draws from zero to the wait without jitter."""
    policy = Exponential(base=timedelta(seconds=100))
    drawn = []
    for fraction in (0.0, 0.25, math.nextafter(1.0, 0.0)):
        monkeypatch.setattr("random.random", lambda fraction=fraction: fraction)
        drawn.append(policy.delay_before(1))
    assert drawn == [timedelta(0), timedelta(seconds=25), timedelta(seconds=100)]


@given(
    retry=st.integers(min_value=1),
    base=st.timedeltas(min_value=timedelta(microseconds=1), max_value=HOUR),
    cap=st.timedeltas(min_value=HOUR),
    factor=st.floats(min_value=1, allow_infinity=False),
    jitter=st.booleans(),
)
def test_exponential_is_never_out_of_bounds(retry, base, cap, factor, jitter):
    """For any retry of any policy, the wait is from zero to the cap."""
    delay = Exponential(base=base, cap=cap, factor=factor, jitter=jitter).delay_before(retry)
    assert delay is not None
    assert timedelta(0) <= delay <= cap


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": timedelta(0)}, "base must be longer than zero"),
        ({"base": -SECOND}, "base must not be negative"),
        ({"base": 1}, "base must be a timedelta, not 1"),
        ({"cap": SECOND - timedelta(microseconds=1)}, "cap must not be less than base"),
        ({"cap": None}, "cap must be a timedelta, not None"),
        ({"factor": 0.999}, "factor must be a finite number of at least 1, not 0.999"),
        ({"factor": math.nan}, "not nan"),
        ({"factor": math.inf}, "not inf"),
        ({"factor": "2"}, "not '2'"),
    ],
)
def test_exponential_refuses_what_makes_no_sense(arguments, message):
    """Arguments are checked when the policy is made."""
    with pytest.raises(ValueError, match=message):
        Exponential(**arguments)


def test_a_cap_equal_to_the_base_is_allowed():
    """The cap may be as low as the base."""
    assert Exponential(base=SECOND, cap=SECOND, jitter=False).delay_before(9) == SECOND


@pytest.mark.parametrize("delay", [-timedelta.resolution, 5, None])
def test_fixed_refuses_what_is_no_delay(delay):
    """A delay is a timedelta of zero or more."""
    with pytest.raises(ValueError, match="delay must"):
        Fixed(delay)


def test_the_default_policy_is_exponential():
    """Who names no policy gets 1 second, doubled up to 1 hour, with full jitter."""
    assert Exponential(base=SECOND, cap=HOUR, factor=2.0, jitter=True) == DEFAULT_POLICY


@pytest.mark.parametrize("policy", [Never(), Fixed(SECOND), Exponential()])
def test_policies_are_values_that_follow_the_protocol(policy):
    """Every policy is a RetryPolicy, and can be hashed."""
    assert isinstance(policy, RetryPolicy)
    assert hash(policy) == hash(policy)
