"""What the service does to many jobs at once."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from jobqueue.cleaner import OnProgress
from jobqueue.cleaning import CleanResult
from jobqueue.models import State
from jobqueue.retention import Retention

OnCount = Callable[[int, int | None], object]
"""Called with how many jobs are done, and how many there are in all, about; None: nobody knows."""


class Acts(Protocol):
    """Replay, delete and clean."""

    def replay_jobs(
        self,
        ids: Iterable[UUID] | None = None,
        *,
        type: str | None = None,
        origin: str | None = None,
        bundle_id: UUID | None = None,
        error: str | None = None,
        older_than: timedelta | None = None,
        newer_than: timedelta | None = None,
        limit: int | None = None,
        batch_size: int = 1000,
        on_progress: OnCount | None = None,
    ) -> int:
        """Make jobs as good as new that have failed, all or those that are what is given; return how many.

        *error* is a part of their error messages, in whatever case; *older_than* and *newer_than* are about when they
        were added. The newest come first, *limit* at most. Each *batch_size* of them is a transaction: what was done
        stands when the next one fails. No job is replayed twice by one call, even when it fails again meanwhile.

        Raises InvalidJobError.
        """
        ...

    def delete_jobs(
        self,
        ids: Iterable[UUID] | None = None,
        *,
        state: State | str | None = None,
        type: str | None = None,
        origin: str | None = None,
        bundle_id: UUID | None = None,
        error: str | None = None,
        older_than: timedelta | None = None,
        newer_than: timedelta | None = None,
        limit: int | None = None,
        batch_size: int = 1000,
        on_progress: OnCount | None = None,
    ) -> int:
        """Delete the jobs that are what is given, also out of their bundles; return how many.

        As ``replay_jobs``, but for jobs in any state; claims on those that run are lost.

        Raises InvalidJobError; also when nothing is given that says which.
        """
        ...

    def clean(self, retention: Retention | None = None, on_progress: OnProgress | None = None) -> CleanResult:
        """Remove what *retention* (None: that of the service) does not keep, now and in this thread.

        What cannot be removed, since rows of other tables refer to it, is logged and left. Tell *on_progress* what was
        removed so far, again and again. Worker pools do the same by themselves, by the retention of their service.
        """
        ...

    def count_old_jobs(self, retention: Retention | None = None) -> CleanResult:
        """Count what ``clean`` would remove; members of bundles are not counted."""
        ...
