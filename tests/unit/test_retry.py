"""Retry policies: how long to wait before which retry."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.retry import DEFAULT_POLICY, Exponential, Fixed, Linear, Never, RetryPolicy, Waits, kinds_of

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


def test_a_factor_without_a_fraction_reaches_the_cap_as_fast():
    """No number is worked out that fills the memory: 10 to the power of 10^30 has no place in any."""
    assert Exponential(factor=10, jitter=False).delay_before(10**30) == HOUR


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
        ({"jitter": 0.5}, "jitter must be True or False, not 0.5"),
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


@pytest.mark.parametrize(("retry", "seconds"), [(1, 600), (2, 1200), (5, 3000), (6, 3600), (7, 3600), (10**400, 3600)])
def test_linear_grows_by_its_step_up_to_the_cap(retry, seconds):
    """Each wait is longer than the one before by the step, until the cap is reached."""
    assert Linear(timedelta(minutes=10)).delay_before(retry) == timedelta(seconds=seconds)


@given(
    retry=st.integers(min_value=1),
    step=st.timedeltas(min_value=timedelta(microseconds=1), max_value=HOUR),
    cap=st.timedeltas(min_value=HOUR),
)
def test_linear_is_never_out_of_bounds(retry, step, cap):
    """For any retry, the wait is as many steps, or the cap where that is less."""
    delay = Linear(step, cap=cap).delay_before(retry)
    assert delay == (cap if retry * (step // timedelta.resolution) >= cap // timedelta.resolution else retry * step)


def test_a_step_of_more_than_an_hour_is_its_own_cap():
    """Without a cap, a long step is waited for each time."""
    assert [Linear(2 * HOUR).delay_before(retry) for retry in (1, 2)] == [2 * HOUR, 2 * HOUR]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(timedelta(0)), "step must be longer than zero"),
        (lambda: Linear(2 * HOUR, cap=HOUR), "cap must not be less than step"),
        (lambda: Linear(5), "step must be a timedelta, not 5"),
        (lambda: Waits([]), "waits must be one timedelta or more, not \\(\\)"),
        (lambda: Waits([SECOND, -SECOND]), "waits must not be negative"),
        (lambda: Waits([1]), "waits must be a timedelta, not 1"),
        (lambda: Waits(SECOND), "waits must be one timedelta or more"),
        (lambda: Fixed(SECOND, only_for=5), "as exception classes, or as their names, not as 5"),
        (lambda: Fixed(SECOND, never_for=[int]), "as exception classes, or as their names, not as <class 'int'>"),
    ],
)
def test_policies_refuse_what_makes_no_sense(make, message):
    """Arguments are checked when a policy is made."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("retry", "wait"), [(1, 1), (2, 10), (3, 30), (4, 30), (10**400, 30)])
def test_waits_come_in_turn_and_the_last_one_stays(retry, wait):
    """Each retry has the wait of its place in the list; those beyond it have the last one."""
    policy = Waits([timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=30)])
    assert policy.delay_before(retry) == timedelta(minutes=wait)


@pytest.mark.parametrize(
    ("only_for", "never_for", "error", "retries"),
    [
        ((), (), ValueError(), True),
        (OSError, (), ConnectionResetError(), True),
        (OSError, (), ValueError(), False),
        ([KeyError, OSError], (), TimeoutError(), True),
        ((), LookupError, KeyError(), False),
        ((), [LookupError], ValueError(), True),
        (OSError, ConnectionError, TimeoutError(), True),
        (OSError, ConnectionError, BrokenPipeError(), False),
        ("builtins.OSError", (), TimeoutError(), True),
        ("json.decoder.JSONDecodeError", (), ValueError(), False),
        (BaseException, (), SystemExit(), True),
    ],
)
def test_errors_can_be_chosen(only_for, never_for, error, retries):
    """Only errors of the classes that are named, or derived from them, are retried; never those of the others."""
    policy = Fixed(SECOND, only_for=only_for, never_for=never_for)
    assert policy.retries_after(kinds_of(error)) is retries


def test_the_default_policy_is_exponential():
    """Who names no policy gets 1 second, doubled up to 1 hour, with full jitter."""
    assert Exponential(base=SECOND, cap=HOUR, factor=2.0, jitter=True) == DEFAULT_POLICY


@pytest.mark.parametrize("policy", [Never(), Fixed(SECOND), Linear(SECOND), Exponential(), Waits([SECOND, HOUR])])
def test_policies_are_values_that_follow_the_protocol(policy):
    """Every policy is a RetryPolicy, and can be hashed."""
    assert isinstance(policy, RetryPolicy)
    assert hash(policy) == hash(policy)
