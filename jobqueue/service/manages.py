"""What the service changes, and deletes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol
from uuid import UUID


class Manages(Protocol):
    """Reset, cancel, put off and delete jobs and bundles."""

    def reset_job(self, id: UUID) -> None:
        """Make a job as good as new: no error, no result, no retry used. A running one's claim is lost.

        Raises JobNotFoundError.
        """
        ...

    def reset_jobs(self, ids: Iterable[UUID]) -> int:
        """Make several jobs as good as new in one transaction; return how many of them were there."""
        ...

    def replay_job(self, id: UUID) -> bool:
        """Make a job that has failed as good as new; return False, and change nothing, in any other case."""
        ...

    def cancel_job(self, id: UUID) -> bool:
        """Stop a job that has not stopped, for good; return whether there was one.

        A running one stops at once as far as the queue goes: its claim is lost, its handler is told by its context,
        and what that still leads to is not saved.
        """
        ...

    def reschedule_job(self, id: UUID, start_at: datetime | None) -> bool:
        """Have a job that has not started be due at *start_at* (None: now); return whether there was one."""
        ...

    def delete_job(self, id: UUID) -> None:
        """Delete a job, also a running one (its claim is lost), also out of its bundle. Raises JobNotFoundError."""
        ...

    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*; return how many."""
        ...

    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*; return how many."""
        ...

    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle; return how many."""
        ...

    def delete_job_bundle(self, id: UUID) -> None:
        """Delete a bundle with its members. Raises JobBundleNotFoundError."""
        ...

    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*, with their members; return how many bundles."""
        ...

    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*, with their members; return how many bundles."""
        ...

    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything."""
        ...
