"""What jobs of a chaos run there are, and what each of them must lead to, whatever happens on the way."""

import random
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any, Final

from jobqueue import JobDesc, State, WorkerSettings

HEARTBEAT: Final = timedelta(seconds=0.3)
DEAD_FOR: Final = timedelta(seconds=1.5)
GO_TYPE: Final = "go.Type"
ATOMIC_TYPES: Final = frozenset({"atomic", "atomic flaky"})

PLANNED: Final[Mapping[str, State]] = {
    "steady": State.SUCCEEDED,
    "deaf": State.SUCCEEDED,
    "flaky": State.SUCCEEDED,
    "hopeless": State.FAILED,
    "snoozing": State.SUCCEEDED,
    "discarding": State.CANCELLED,
    "atomic": State.SUCCEEDED,
    "atomic flaky": State.SUCCEEDED,
    "follow-up": State.SUCCEEDED,
    "complete": State.SUCCEEDED,
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
    GO_TYPE: 1,
}
_RETRIES: Final = {"flaky": 2, "hopeless": 1, "atomic flaky": 2}
_LONGEST_RUN: Final = 0.8

COMPLETE: Final = JobDesc({}, type="complete", max_retry_count=1000)
"""What a bundle asks for when it has stopped. Its handler reads the bundle, and fails while the database is away."""


def worker_settings(batch_size: int) -> WorkerSettings:
    """Return settings by which silence is noticed soon, and no job is given up because of it."""
    return WorkerSettings(
        heartbeat_interval=HEARTBEAT,
        dead_for=DEAD_FOR,
        poll_interval=timedelta(seconds=1),
        batch_size=batch_size,
        max_rescues=1000,
    )


def random_desc(chance: random.Random, but: AbstractSet[str] = frozenset()) -> JobDesc:
    """Describe a job of any type *but* some, and but those that only other jobs bring about."""
    weights = {type_: weight for type_, weight in _WEIGHTS.items() if type_ not in but}
    [type_] = chance.choices(list(weights), list(weights.values()))
    return JobDesc(
        random_payload(chance), type=type_, priority=chance.choice([0, 0, 0, 5]), max_retry_count=_RETRIES.get(type_, 0)
    )


def random_payload(chance: random.Random) -> dict[str, Any]:
    """Say how long a run takes (most are short), and how many runs end before the one that succeeds."""
    return {"seconds": round(_LONGEST_RUN * chance.random() ** 3, 3), "times": chance.randint(1, 2)}
