"""How many jobs and bundles there are."""

from collections.abc import Mapping

import attrs

from jobqueue.models import State
from jobqueue.pauses import PausedType


@attrs.frozen(kw_only=True)
class Status:
    """How many jobs and bundles there are, whatever became of them."""

    num_jobs: int = 0
    num_job_bundles: int = 0
    by_type_and_state: Mapping[str, Mapping[State, int]] = attrs.field(
        factory=dict[str, Mapping[State, int]], repr=False
    )

    paused: tuple[PausedType, ...] = attrs.field(default=(), repr=False)
    """What is paused now, by type."""

    @property
    def by_state(self) -> dict[State, int]:
        """The number of jobs in each state; every state is a key."""
        return {state: sum(states.get(state, 0) for states in self.by_type_and_state.values()) for state in State}

    @property
    def by_type(self) -> dict[str, int]:
        """The number of jobs of each type that has any."""
        return {type_: sum(states.values()) for type_, states in self.by_type_and_state.items()}

    @property
    def is_zero(self) -> bool:
        """Whether there is nothing at all."""
        return self.num_jobs == 0 and self.num_job_bundles == 0

    def __str__(self) -> str:
        paused = f", Paused: {len(self.paused)}" if self.paused else ""
        return f"Status{{NumJobs: {self.num_jobs}, NumJobBundles: {self.num_job_bundles}{paused}}}"
