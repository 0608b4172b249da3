"""Which types a trip asks for, and how many jobs: a little ahead, and atomic ones for free connections only."""

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from math import exp, log
from typing import Final

import attrs

from jobqueue.models import Job
from jobqueue.pauses import covers
from jobqueue.settings import WorkerSettings
from jobqueue.worker.atomic_connections import AtomicConnections

_SECONDS_OF_WORK_AHEAD: Final = 0.020
_SMOOTHING: Final = 0.1
_SHORTEST: Final = 1e-6
_ROUNDING: Final = 1e-3
_TRIPS_OF_OTHERS: Final = 4

NONE_CLOSED: Final[AbstractSet[str]] = frozenset()


@attrs.frozen
class TripRequest:
    """What one trip asks for."""

    types: Sequence[str]
    limit: int
    num_reserved: int = 0
    """How many connections of atomic handlers are kept for what it may bring."""
    sees_all: bool = True
    """Whether there is nothing to be had for now when it brings less than it asks for."""
    without: Sequence[str] = ()
    """What patterns among the types do not stand for."""


@attrs.frozen
class _Choice:
    """What there is to ask for while some names are closed."""

    closed: AbstractSet[str]
    types: Sequence[str]
    others: Sequence[str]
    """Those that are not atomic."""
    without: Sequence[str] = ()


class Demand:
    """What the workers of one desk may claim. Called under the dispatcher's lock.

    While a connection of atomic handlers is free, trips ask for all types, but for no more jobs than there are free
    ones, since all of them may be atomic. Else they ask for the other types only, and not for patterns that some atomic
    type would match. So do the next few after a trip that could have brought atomic jobs, and brought nothing but
    others: else these would travel in small parties wherever an atomic handler is registered.

    What is *closed* for the moment, be it a type, or the name by which the handler of one is registered (*owner_of*),
    is not asked for.
    """

    def __init__(
        self,
        types: Iterable[str],
        is_atomic: Callable[[str], bool],
        settings: WorkerSettings,
        *,
        num_workers: int = 1,
        connections: AtomicConnections | None = None,
        owner_of: Callable[[str], str] = str,
    ) -> None:
        types = tuple(types)
        self._is_atomic = is_atomic
        self._owner_of = owner_of
        self._batch_size = settings.batch_size
        self.num_workers = num_workers
        self.connections = connections or AtomicConnections(settings.atomic_connections)
        atomic = tuple(name for name in types if is_atomic(name))
        self.has_atomic = bool(atomic)
        others = tuple(name for name in types if name not in atomic and not _matches_any(name, atomic))
        self._all = self._choice = _Choice(NONE_CLOSED, types, others)
        self._others_first = 0  # how many trips are to ask for the other types, although connections are free
        self._was_held_back = False  # whether a trip could not ask for atomic types since one asked for all
        # How long jobs take. Of the logarithms, so that it is about what most of them take: one in ten seems to take a
        # hundred times as long when threads wait for one another, or for a processor.
        self._mean_log_seconds: float | None = None
        self.ahead = 0
        """How many jobs to hold besides those for idle workers: 20 ms of work for each; none if they are long."""

    def includes(self, job_type: str) -> bool:
        """Whether these workers run jobs of a type."""
        return any(covers(name, job_type) for name in self._all.types)

    def note_duration(self, seconds: float) -> None:
        """Take into account how long a job has taken."""
        mean, new = self._mean_log_seconds, log(seconds or _SHORTEST)
        self._mean_log_seconds = mean = new if mean is None else mean + _SMOOTHING * (new - mean)
        each = int(_SECONDS_OF_WORK_AHEAD / exp(mean) + _ROUNDING)
        self.ahead = min(self._batch_size - 1, each * self.num_workers)

    def _open(self, closed: AbstractSet[str]) -> _Choice:
        if not closed:
            return self._all
        if self._choice.closed != closed:
            types = self._all_but(self._all.types, closed)
            has_pattern = any(name.endswith("*") for name in types)
            without = sorted(closed) if has_pattern else ()
            self._choice = _Choice(closed, types, self._all_but(self._all.others, closed), without)
        return self._choice

    def _all_but(self, names: Sequence[str], closed: AbstractSet[str]) -> Sequence[str]:
        return tuple(name for name in names if name not in closed and self._owner_of(name) not in closed)

    def limit(self, wanted: int, closed: AbstractSet[str] = NONE_CLOSED) -> int:
        """Return how many jobs may be asked for when *wanted* are."""
        if not closed and not self.has_atomic:
            return wanted
        choice = self._open(closed)
        if closed and not choice.types:
            return 0
        if not self.has_atomic or (choice.others and self._asks_for_others):
            return wanted
        return min(wanted, max(0, self.connections.num_free))

    @property
    def _asks_for_others(self) -> bool:
        return self.connections.num_free < 1 or self._others_first > 0

    def ask(self, limit: int, closed: AbstractSet[str] = NONE_CLOSED) -> TripRequest:
        """Make the request of a trip for up to *limit* jobs, which ``limit`` has allowed."""
        choice = self._open(closed)
        if not self.has_atomic or limit < 1:
            return TripRequest(choice.types, limit, without=choice.without)
        if self.connections.num_free < 1:
            self._was_held_back = True
            return TripRequest(choice.others, limit, without=choice.without)
        if choice.others and self._others_first:
            self._others_first -= 1
            return TripRequest(choice.others, limit, sees_all=False, without=choice.without)
        self.connections.reserve(limit)
        return TripRequest(choice.types, limit, num_reserved=limit, without=choice.without)

    def receive(self, request: TripRequest, jobs: Collection[Job]) -> int:
        """Take note of what a trip has brought; return how many reasons to look at the queue again arise from it."""
        if not self.has_atomic:
            return 0
        atomic = [job.fence for job in jobs if self._is_atomic(job.type)]
        self.connections.take(atomic, reserved=request.num_reserved)
        if not request.sees_all and len(jobs) < request.limit:
            self._others_first = 0
            return 1
        if request.num_reserved == len(atomic):
            return 0
        if len(jobs) == request.limit and not atomic:
            self._others_first = _TRIPS_OF_OTHERS
        is_due, self._was_held_back = self._was_held_back, False
        return int(is_due)


def _matches_any(pattern: str, names: Iterable[str]) -> bool:
    return pattern.endswith("*") and any(name.startswith(pattern.removesuffix("*")) for name in names)
