"""Claimed jobs that wait for a worker, in the order in which they are to be run."""

import time
from collections import deque
from collections.abc import Collection, Iterable

import attrs

from jobqueue.models import Fence, Job


@attrs.define(eq=False)
class HeldJob:
    """A claimed job that no worker has begun."""

    job: Job
    since: float
    kept_until: float = 0.0
    """Until when nobody can take the claim away, even if nobody beats for it."""


class HeldJobs:
    """What a pool has claimed ahead. Called under the dispatcher's lock."""

    def __init__(self) -> None:
        self._jobs: deque[HeldJob] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, jobs: Iterable[Job], kept_until: float) -> None:
        """Hold what a trip has brought."""
        now = time.monotonic()
        self._jobs.extend([HeldJob(job, now, kept_until) for job in jobs])

    @property
    def first(self) -> HeldJob:
        """The next one to be run."""
        return self._jobs[0]

    def take(self) -> Job:
        """Take the next one out."""
        return self._jobs.popleft().job

    def take_late(self, since_before: float) -> list[HeldJob]:
        """Take out all that are held since a moment before that, by the monotonic clock."""
        taken = [held for held in self._jobs if held.since <= since_before]
        self._jobs = deque(held for held in self._jobs if held.since > since_before)
        return taken

    def take_types(self, types: Collection[str]) -> list[HeldJob]:
        """Take out all that are of one of *types*."""
        taken = [held for held in self._jobs if held.job.type in types]
        self._jobs = deque(held for held in self._jobs if held.job.type not in types)
        return taken

    def take_all_but(self, n: int) -> list[HeldJob]:
        """Take out all but the first *n*."""
        left = list(self._jobs)
        self._jobs = deque(left[:n])
        return left[n:]

    def drop(self, lost: Collection[Fence]) -> list[Fence]:
        """Drop those with claims that were lost; return the claims of those."""
        dropped = [held.job.fence for held in self._jobs if held.job.fence in lost]
        self._jobs = deque(held for held in self._jobs if held.job.fence not in lost)
        return dropped

    def fences(self) -> list[Fence]:
        """Return the claims of all of them."""
        return [held.job.fence for held in self._jobs]
