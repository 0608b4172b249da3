"""Which types a trip asks for, and how many jobs: a little ahead, and atomic ones for free connections only."""

from collections.abc import Callable, Collection, Iterable, Sequence
from math import exp, log
from typing import Final

import attrs

from jobqueue.models import Fence, Job
from jobqueue.settings import WorkerSettings

_SECONDS_OF_WORK_AHEAD: Final = 0.020
_SMOOTHING: Final = 0.1
_SHORTEST: Final = 1e-6
_ROUNDING: Final = 1e-3
_TRIPS_OF_OTHERS: Final = 4


@attrs.frozen
class TripRequest:
    """What one trip asks for."""

    types: Sequence[str]
    limit: int
    num_reserved: int = 0
    """How many connections of atomic handlers are kept for what it may bring."""
    sees_all: bool = True
    """Whether there is nothing to be had for now when it brings less than it asks for."""


class Demand:
    """What a pool may claim. Called under the dispatcher's lock.

    While a connection of atomic handlers is free, trips ask for all types, but for no more jobs than there are free
    ones, since all of them may be atomic. Else they ask for the other types only, and not for patterns that some atomic
    type would match. So do the next few after a trip that could have brought atomic jobs, and brought nothing but
    others: else these would travel in small parties wherever an atomic handler is registered.
    """

    def __init__(
        self, types: Iterable[str], is_atomic: Callable[[str], bool], settings: WorkerSettings, *, num_workers: int = 1
    ) -> None:
        self._types = tuple(types)
        self._is_atomic = is_atomic
        self._batch_size = settings.batch_size
        self._num_workers = num_workers
        self._connections = settings.atomic_connections
        atomic = tuple(name for name in self._types if is_atomic(name))
        self.has_atomic = bool(atomic)
        self._others = tuple(name for name in self._types if name not in atomic and not _matches_any(name, atomic))
        self._taken = set[Fence]()
        self._num_reserved = 0
        self._others_first = 0  # how many trips are to ask for the other types, although connections are free
        self._was_held_back = False  # whether a trip could not ask for atomic types since one asked for all
        # How long jobs take. Of the logarithms, so that it is about what most of them take: one in ten seems to take a
        # hundred times as long when threads wait for one another, or for a processor.
        self._mean_log_seconds: float | None = None
        self.ahead = 0
        """How many jobs to hold besides those for idle workers: 20 ms of work for each; none if they are long."""

    def note_duration(self, seconds: float) -> None:
        """Take into account how long a job has taken."""
        mean, new = self._mean_log_seconds, log(seconds or _SHORTEST)
        self._mean_log_seconds = mean = new if mean is None else mean + _SMOOTHING * (new - mean)
        each = int(_SECONDS_OF_WORK_AHEAD / exp(mean) + _ROUNDING)
        self.ahead = min(self._batch_size - 1, each * self._num_workers)

    @property
    def _num_free(self) -> int:
        return self._connections - len(self._taken) - self._num_reserved

    def limit(self, wanted: int) -> int:
        """Return how many jobs may be asked for when *wanted* are."""
        if not self.has_atomic or (self._others and self._asks_for_others):
            return wanted
        return min(wanted, max(0, self._num_free))

    @property
    def _asks_for_others(self) -> bool:
        return self._num_free < 1 or self._others_first > 0

    def ask(self, limit: int) -> TripRequest:
        """Make the request of a trip for up to *limit* jobs, which ``limit`` has allowed."""
        if not self.has_atomic or limit < 1:
            return TripRequest(self._types, limit)
        if self._num_free < 1:
            self._was_held_back = True
            return TripRequest(self._others, limit)
        if self._others and self._others_first:
            self._others_first -= 1
            return TripRequest(self._others, limit, sees_all=False)
        self._num_reserved += limit
        return TripRequest(self._types, limit, num_reserved=limit)

    def receive(self, request: TripRequest, jobs: Collection[Job]) -> int:
        """Take note of what a trip has brought; return how many reasons to look at the queue again arise from it."""
        if not self.has_atomic:
            return 0
        atomic = [job.fence for job in jobs if self._is_atomic(job.type)]
        self._taken.update(atomic)
        self._num_reserved -= request.num_reserved
        if not request.sees_all and len(jobs) < request.limit:
            self._others_first = 0
            return 1
        if request.num_reserved == len(atomic):
            return 0
        if len(jobs) == request.limit and not atomic:
            self._others_first = _TRIPS_OF_OTHERS
        is_due, self._was_held_back = self._was_held_back, False
        return int(is_due)

    def give_back(self, fence: Fence) -> int:
        """Note that a claimed job does not need its connection any more; return how many connections that has freed."""
        if not self._taken:
            return 0
        before = len(self._taken)
        self._taken.discard(fence)
        return before - len(self._taken)


def _matches_any(pattern: str, names: Iterable[str]) -> bool:
    return pattern.endswith("*") and any(name.startswith(pattern.removesuffix("*")) for name in names)
