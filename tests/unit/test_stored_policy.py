"""Retry policies as JSON, as they are stored with a job."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.bundle import JobDesc
from jobqueue.errors import InvalidJobError
from jobqueue.models import Job
from jobqueue.retry import Exponential, Fixed, Linear, Never, Waits
from jobqueue.stored_policy import policy_json, policy_of_json

SECOND = timedelta(seconds=1)
A_CENTURY = timedelta(days=36_525)

durations = st.timedeltas(min_value=timedelta(microseconds=1), max_value=A_CENTURY)
errors = st.lists(st.sampled_from([OSError, "a.B", ValueError]), max_size=2)
policies = st.one_of(
    st.just(Never()),
    st.builds(Fixed, durations, only_for=errors, never_for=errors),
    st.builds(lambda step, only_for: Linear(step, cap=A_CENTURY, only_for=only_for), durations, errors),
    st.builds(Waits, st.lists(durations, min_size=1, max_size=5), never_for=errors),
    st.builds(
        lambda base, factor, jitter: Exponential(base=base, cap=A_CENTURY, factor=factor, jitter=jitter),
        durations,
        st.floats(min_value=1, allow_infinity=False),
        st.booleans(),
    ),
)


@given(policies)
def test_a_policy_comes_back_as_it_was(policy):
    """What is stored of a policy makes the same policy again."""
    assert policy_of_json(policy_json(policy)) == policy


def test_the_longest_wait_comes_back():
    """Not even a wait that no float can tell is too long."""
    assert policy_of_json(policy_json(Fixed(timedelta.max))) == Fixed(timedelta.max)


def test_it_can_be_read_by_people():
    """What stands in the database tells the policy and its durations, in seconds."""
    assert json.loads(policy_json(Waits([SECOND, 60 * SECOND], never_for=KeyError))) == {
        "policy": "waits",
        "waits": [1.0, 60.0],
        "only_for": [],
        "never_for": ["builtins.KeyError"],
    }


@pytest.mark.parametrize("text", ['{"policy": "sometimes"}', "{}"])
def test_a_policy_of_another_version(text):
    """A policy that is not known here is an error that shows it."""
    with pytest.raises(ValueError, match="does not know the retry policy"):
        policy_of_json(text)


class MyPolicy:
    def delay_before(self, retry):
        return retry * SECOND


class MyFixed(Fixed):
    pass


@pytest.mark.parametrize("policy", [MyPolicy(), MyFixed(SECOND), Fixed, "fixed", 5])
def test_only_what_can_be_stored_is_taken(policy):
    """An application's own policy cannot be stored with a job: the message says what can, and the way out."""
    with pytest.raises(InvalidJobError, match=r"Never, Fixed, Linear, Exponential, Waits.*with the handler") as caught:
        Job.new("t", 1, retry=policy)
    assert caught.value.field == "retry"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 0),
        ({"retry": Waits([SECOND] * 3)}, 3),
        ({"retry": Waits([SECOND] * 3), "max_retry_count": 1}, 1),
        ({"retry": Fixed(SECOND)}, 0),
    ],
)
def test_waits_say_how_often(options, count):
    """A job with a list of waits is retried once for each of them, unless it says otherwise."""
    job = Job.new("t", 1, **options)
    assert (job.max_retry_count, job.retry_policy) == (count, options.get("retry"))


def test_members_have_policies_of_their_own():
    """A description may name a policy, which its job then has."""
    assert JobDesc(1, type="t", retry=Never()).retry == Never()
