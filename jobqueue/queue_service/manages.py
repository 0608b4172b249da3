"""The part of the service that changes what was added, and deletes it."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from jobqueue.errors import JobBundleNotFoundError, JobNotFoundError
from jobqueue.limits import check_id, check_ids, check_moment, check_text
from jobqueue.queue_service.changing import changing
from jobqueue.queue_service.opened import Opened


class Manages(Opened):
    """Changes are made to the rows alone; whoever runs a job that is taken away hears of it from the store."""

    @changing
    def reset_job(self, id: UUID) -> None:
        """Make a job as good as new."""
        if not self._open_store().reset_jobs([check_id(id)]):
            raise JobNotFoundError(id)

    @changing
    def reset_jobs(self, ids: Iterable[UUID]) -> int:
        """Make several jobs as good as new in one transaction; return how many of them were there."""
        return len(self._open_store().reset_jobs(check_ids(ids)))

    @changing
    def replay_job(self, id: UUID) -> bool:
        """Make a job that has failed as good as new."""
        return bool(self._open_store().replay_jobs([check_id(id)]))

    @changing
    def cancel_job(self, id: UUID) -> bool:
        """Stop a job that has not stopped."""
        return bool(self._open_store().cancel_jobs([check_id(id)]))

    @changing
    def reschedule_job(self, id: UUID, start_at: datetime | None) -> bool:
        """Have a waiting job be due at another moment."""
        return self._open_store().reschedule_job(check_id(id), check_moment("start_at", start_at))

    @changing
    def delete_job(self, id: UUID) -> None:
        """Delete a job."""
        if not self._open_store().delete_jobs([check_id(id)]):
            raise JobNotFoundError(id)

    @changing
    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*."""
        return self._open_store().delete_jobs_from_origin(check_text("origin", origin))

    @changing
    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*."""
        return self._open_store().delete_jobs_of_type(check_text("type", type))

    @changing
    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle."""
        return self._open_store().delete_finished_jobs()

    @changing
    def delete_job_bundle(self, id: UUID) -> None:
        """Delete a bundle with its members."""
        if not self._open_store().delete_job_bundles([check_id(id)]):
            raise JobBundleNotFoundError(id)

    @changing
    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*, with their members."""
        return self._open_store().delete_job_bundles_from_origin(check_text("origin", origin))

    @changing
    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*, with their members."""
        return self._open_store().delete_job_bundles_of_type(check_text("type", type))

    @changing
    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything."""
        self._open_store().delete_all_jobs_and_bundles()
