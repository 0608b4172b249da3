"""The port through which jobs that are old enough are found and removed."""

from datetime import timedelta
from typing import Protocol
from uuid import UUID

import attrs

from jobqueue.retention import Retention


@attrs.frozen(kw_only=True)
class CleanResult:
    """How many jobs were removed, those of bundles included, and how many bundles; false when nothing was."""

    jobs: int = 0
    bundles: int = 0

    def __bool__(self) -> bool:
        return bool(self.jobs or self.bundles)

    def __add__(self, other: "CleanResult") -> "CleanResult":
        return CleanResult(jobs=self.jobs + other.jobs, bundles=self.bundles + other.bundles)


@attrs.frozen(kw_only=True)
class Found:
    """What one look has come by."""

    ids: tuple[UUID, ...] = ()
    """What may be removed."""
    number: int = 0
    """How much was looked at."""
    place: object = None
    """Where to go on from; the backend's business. None: at the beginning."""
    is_end: bool = True
    """Whether there was nothing more."""


class Cleaning(Protocol):
    """Rows that have been kept for long enough. Each method is one statement; ages are by the database's clock.

    What is found need not be so any more when it is to be removed: that is judged again, and what somebody has locked
    is left alone. A RefusedError says that one of the rows cannot go, and none of those that were given has gone.
    """

    def find_jobs(self, retention: Retention, *, after: object, limit: int, behind: timedelta = timedelta(0)) -> Found:
        """Look at *limit* jobs, from the oldest on, or those that follow the place *after*; find those in no bundle.

        That is up to those that were added as long ago as the least age says, and *behind* longer.
        """
        ...

    def remove_jobs(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        """Remove those of the jobs that are old enough."""
        ...

    def find_bundles(self, retention: Retention, *, after: object, limit: int) -> Found:
        """Look at *limit* bundles, in any order that stays the same, or those that follow the place *after*."""
        ...

    def remove_bundles(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        """Remove those of the bundles that are old enough, each with all of its members."""
        ...
