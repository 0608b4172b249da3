"""The port for what is done to all jobs that a filter means, page by page."""

from typing import Protocol

import attrs

from jobqueue.job_filter import JobFilter


@attrs.frozen(kw_only=True)
class Acted:
    """What has become of one page of jobs."""

    number: int = 0
    """How many were changed."""
    place: object = None
    """Where the next page begins, the backend's business; None: there is none."""


class Acting(Protocol):
    """Jobs are looked for from the newest on; those of a page are changed in one transaction.

    A job that is not what the filter says any more when it is locked is left alone.
    """

    def replay(self, which: JobFilter, *, limit: int, after: object) -> Acted:
        """Make those of the next *limit* jobs that have failed as good as new."""
        ...

    def delete(self, which: JobFilter, *, limit: int, after: object) -> Acted:
        """Delete the next *limit* jobs, and take them out of the counts of their bundles."""
        ...

    def estimate(self, which: JobFilter) -> int | None:
        """Say how many jobs are meant, about where it would take long to count them; None: nobody knows."""
        ...
