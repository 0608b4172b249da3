"""Numbers that are had at once, in memory: there is no need to estimate any."""

from collections import Counter
from datetime import timedelta

from jobqueue.backends.memory.acting import state_of
from jobqueue.backends.memory.session import Session
from jobqueue.counting import JobCounts
from jobqueue.models import State


class MemoryCounting:
    """The Counting over a MemoryQueue."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def count_jobs(self) -> JobCounts:
        """Count jobs by type and state."""
        now = self._session.moment()
        with self._session.reading() as rows:
            jobs = list(rows.jobs.values())
        counts = dict[str, dict[State, int]]()
        for (job_type, state), number in sorted(Counter((job.type, state_of(job, now)) for job in jobs).items()):
            counts.setdefault(job_type, {})[state] = number
        return JobCounts(by_type_and_state=counts)

    def oldest_due_age(self) -> dict[str, timedelta]:
        """Say of each type that has jobs which are due and wait, for how long the first of them has been due."""
        now = self._session.moment()
        with self._session.reading() as rows:
            jobs = list(rows.jobs.values())
        ages: dict[str, timedelta] = {}
        for job in jobs:
            due_at = job.start_at or job.created_at
            if not job.started and not job.stopped and due_at is not None and due_at <= now:
                ages[job.type] = max(ages.get(job.type, timedelta(0)), now - due_at)
        return ages
