"""Claimed jobs that wait for a worker, in the order in which they are to be run."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable

import attrs

from jobqueue.models import Fence, Job


@attrs.define(eq=False)
class HeldJob:
    """A claimed job that no worker has begun."""

    job: Job
    since: float
    kept_until: float = 0.0
    """Until when nobody can take the claim away, even if nobody beats for it."""


class HeldJobs(deque[HeldJob]):
    """What a pool has claimed ahead. Called under the dispatcher's lock.

    A deque itself, since several times for each job somebody asks how many there are. A signal handler may interrupt
    whoever looks through it, and take what is there: so that is done over copies.
    """

    def add(self, jobs: Iterable[Job], kept_until: float) -> None:
        """Hold what a trip has brought."""
        now = time.monotonic()
        self.extend([HeldJob(job, now, kept_until) for job in jobs])

    @property
    def first(self) -> HeldJob:
        """The next one to be run."""
        return self[0]

    def take(self) -> Job:
        """Take the next one out."""
        return self.popleft().job

    def take_late(self, since_before: float) -> list[HeldJob]:
        """Take out all that are held since a moment before that, by the monotonic clock."""
        return self._take_out(lambda held: held.since <= since_before)

    def take_types(self, types: Collection[str]) -> list[HeldJob]:
        """Take out all that are of one of *types*."""
        return self._take_out(lambda held: held.job.type in types)

    def take_all_but(self, n: int) -> list[HeldJob]:
        """Take out all but the first *n*."""
        left = list(self)
        self.clear()
        self.extend(left[:n])
        return left[n:]

    def drop(self, lost: Collection[Fence]) -> list[Fence]:
        """Drop those with claims that were lost; return the claims of those."""
        return [held.job.fence for held in self._take_out(lambda held: held.job.fence in lost)]

    def fences(self) -> list[Fence]:
        """Return the claims of all of them."""
        return [held.job.fence for held in list(self)]

    def _take_out(self, is_meant: Callable[[HeldJob], bool]) -> list[HeldJob]:
        taken, left = list[HeldJob](), list[HeldJob]()
        for held in list(self):
            (taken if is_meant(held) else left).append(held)
        self.clear()
        self.extend(left)
        return taken
