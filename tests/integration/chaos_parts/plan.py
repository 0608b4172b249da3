"""What jobs of a chaos run there are, and what each of them must lead to, whatever happens on the way."""

import random
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any, Final

from jobqueue import JobDesc, State

HEARTBEAT: Final = timedelta(seconds=0.3)
DEAD_FOR: Final = timedelta(seconds=1.5)
GO_TYPE: Final = "go.Type"
DJANGO_TYPE: Final = "atomic in Django"
ATOMIC_TYPES: Final = frozenset({"atomic", "atomic flaky", DJANGO_TYPE})

EVERY: Final = timedelta(seconds=1)
SCHEDULES: Final[Mapping[str, str]] = {
    "tick:all": "allow",
    "tick:alone": "skip",
    "tick:managed": "allow",
}
"""Schedules, each with jobs of a type of the same name, and what they do when a job of theirs goes on at a tick."""

MANAGED_SCHEDULE: Final = "tick:managed"
"""The one that is paused, resumed, run by hand, removed and added again."""

PLANNED: Final[Mapping[str, State]] = {
    "steady": State.SUCCEEDED,
    "deaf": State.SUCCEEDED,
    "flaky": State.SUCCEEDED,
    "hopeless": State.FAILED,
    "snoozing": State.SUCCEEDED,
    "discarding": State.CANCELLED,
    "atomic": State.SUCCEEDED,
    "atomic flaky": State.SUCCEEDED,
    DJANGO_TYPE: State.SUCCEEDED,
    "follow-up": State.SUCCEEDED,
    "complete": State.SUCCEEDED,
    "backing off": State.SUCCEEDED,
    **dict.fromkeys(SCHEDULES, State.SUCCEEDED),
    GO_TYPE: State.SUCCEEDED,
}
"""How a job of each type ends, unless somebody cancels it."""

_WEIGHTS: Final = {
    "steady": 6,
    "deaf": 2,
    "flaky": 2,
    "hopeless": 1,
    "snoozing": 2,
    "discarding": 1,
    "atomic": 3,
    "atomic flaky": 1,
    DJANGO_TYPE: 3,
    "backing off": 1,
    GO_TYPE: 1,
}
RETRIES: Final = {"flaky": 2, "hopeless": 1, "atomic flaky": 2, "backing off": 2}
_LONGEST_RUN: Final = 0.8

PAUSED: Final = ("steady", "flaky", "deaf", "atomic", "tick:*")
"""Types and patterns that are paused for a while."""

KEYED_TYPES: Final = ("steady", "flaky", "hopeless", "atomic")
KEYS: Final = ("a", "b")
SCOPES: Final = ("waiting", "waiting_and_running", "until_succeeded", timedelta(seconds=1))
"""Unique keys are few, so that there are many duplicates; how long one is held is up to whoever gets it."""

AGES: Final = {
    "succeeded": timedelta(seconds=4),
    "failed": timedelta(seconds=6),
    "cancelled": timedelta(seconds=5),
}
"""For how long jobs stay in the queue after they have stopped, before they are archived."""

AGES_BY_TYPE: Final[Mapping[str, Mapping[str, timedelta]]] = {
    "deaf": {"succeeded": timedelta(0)},
    "atomic": {"succeeded": timedelta(0)},
    "discarding": {"cancelled": timedelta(0)},
    "follow-up": {"succeeded": timedelta(0)},
    **{name: {"succeeded": timedelta(0)} for name in SCHEDULES},
}
"""Some go in the moment in which they have come to their end."""

COMPLETE: Final = JobDesc({}, type="complete", max_retry_count=1000)
"""What a bundle asks for when it has stopped. Its handler reads the bundle, and fails while the database is away."""


def random_desc(chance: random.Random, but: AbstractSet[str] = frozenset()) -> JobDesc:
    """Describe a job of any type *but* some, and but those that only other jobs bring about."""
    weights = {type_: weight for type_, weight in _WEIGHTS.items() if type_ not in but}
    [type_] = chance.choices(list(weights), list(weights.values()))
    return JobDesc(
        random_payload(chance), type=type_, priority=chance.choice([0, 0, 0, 5]), max_retry_count=RETRIES.get(type_, 0)
    )


def random_payload(chance: random.Random) -> dict[str, Any]:
    """Say how long a run takes (most are short), and how many runs end before the one that succeeds."""
    return {"seconds": round(_LONGEST_RUN * chance.random() ** 3, 3), "times": chance.randint(1, 2)}


def age_of(job: Mapping[str, Any]) -> timedelta:
    """Return for how long a job that has stopped stays in the queue."""
    if job["cancelled_at"] is not None:
        state = State.CANCELLED
    else:
        state = State.SUCCEEDED if job["error_msg"] is None else State.FAILED
    return AGES_BY_TYPE.get(job["type"], {}).get(state, AGES[state])
