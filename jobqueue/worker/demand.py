"""Which types a trip asks for, and how many jobs: a little ahead, and atomic ones for free connections only."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

import attrs

from jobqueue.models import Job
from jobqueue.settings import WorkerSettings

_SECONDS_OF_WORK_AHEAD: Final = 0.020
_SMOOTHING: Final = 0.1


@attrs.frozen
class Request:
    """What one trip asks for."""

    types: Sequence[str]
    limit: int
    num_reserved: int
    """How many connections of atomic handlers are kept for what it may bring."""


class Demand:
    """What a pool may claim. Called under the dispatcher's lock.

    While a connection of atomic handlers is free, trips ask for all types, but for no more jobs than there are free
    ones, since all of them may be atomic. Else they ask for the other types only, and not for patterns that some atomic
    type would match.
    """

    def __init__(self, types: Iterable[str], is_atomic: Callable[[str], bool], settings: WorkerSettings) -> None:
        self._types = tuple(types)
        self._is_atomic = is_atomic
        self._batch_size = settings.batch_size
        self._connections = settings.atomic_connections
        atomic = tuple(name for name in self._types if is_atomic(name))
        self.has_atomic = bool(atomic)
        self._others = tuple(name for name in self._types if name not in atomic and not _matches_any(name, atomic))
        self._taken = set[UUID]()
        self._num_reserved = 0
        self._mean_seconds: float | None = None  # how long jobs take

    def note_duration(self, seconds: float) -> None:
        """Take into account how long a job has taken."""
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else mean + _SMOOTHING * (seconds - mean)

    def ahead(self) -> int:
        """Return how many jobs to hold besides those for idle workers: 20 ms of work, so none while jobs are long."""
        if self._batch_size == 1 or self._mean_seconds is None:
            return 0
        return min(self._batch_size - 1, int(_SECONDS_OF_WORK_AHEAD / max(self._mean_seconds, 1e-6)))

    @property
    def _num_free(self) -> int:
        return self._connections - len(self._taken) - self._num_reserved

    def limit(self, wanted: int) -> int:
        """Return how many jobs may be asked for when *wanted* are."""
        if not self.has_atomic:
            return wanted
        if self._num_free > 0:
            return min(wanted, self._num_free)
        return wanted if self._others else 0

    def ask(self, limit: int) -> Request:
        """Make the request of a trip for up to *limit* jobs, which ``limit`` has allowed."""
        if not self.has_atomic:
            return Request(self._types, limit, 0)
        if self._num_free < 1:
            return Request(self._others, limit, 0)
        self._num_reserved += limit
        return Request(self._types, limit, limit)

    def receive(self, request: Request, jobs: Iterable[Job]) -> None:
        """Take note of what a trip has brought."""
        self._num_reserved -= request.num_reserved
        if self.has_atomic:
            self._taken.update(job.id for job in jobs if self._is_atomic(job.type))

    def give_back(self, job_id: UUID) -> int:
        """Note that a job does not need its connection any more, if it did; return how many that has freed."""
        before = len(self._taken)
        self._taken.discard(job_id)
        return before - len(self._taken)


def _matches_any(pattern: str, names: Iterable[str]) -> bool:
    return pattern.endswith("*") and any(name.startswith(pattern.removesuffix("*")) for name in names)
