"""Numbers that are had at once, however many jobs there are: what they look like, and the port that has them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

import attrs

from jobqueue.models import State


@attrs.frozen(kw_only=True, repr=False)
class JobCounts:
    """How many jobs there are of each type and state, some of it estimated."""

    by_type_and_state: Mapping[str, Mapping[State, int]] = attrs.field(factory=dict[str, Mapping[State, int]])
    estimated_states: frozenset[State] = frozenset()
    """The states whose numbers are estimates; a type with few jobs may be missing in them. Of running jobs those are
    counted that were claimed last."""

    @property
    def is_estimate(self) -> bool:
        """Whether any of the numbers is an estimate."""
        return bool(self.estimated_states)

    @property
    def by_state(self) -> dict[State, int]:
        """The number of jobs in each state; every state is a key."""
        return {state: sum(states.get(state, 0) for states in self.by_type_and_state.values()) for state in State}

    @property
    def num_jobs(self) -> int:
        """The number of all jobs."""
        return sum(self.by_state.values())

    def __repr__(self) -> str:
        about = {state: "about " if state in self.estimated_states else "" for state in State}
        numbers = ", ".join(f"{state}: {about[state]}{number}" for state, number in self.by_state.items())
        return f"{type(self).__qualname__}({numbers})"


class Counting(Protocol):
    """Counts without reading what has been finished."""

    def count_jobs(self) -> JobCounts:
        """Count jobs by type and state: exactly where that is quick, and else by a sample."""
        ...

    def oldest_due_age(self) -> dict[str, timedelta]:
        """Say of each type that has jobs which are due and wait, for how long the first of them has been due."""
        ...
