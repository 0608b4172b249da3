"""What goes on in memory."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from jobqueue.backends.memory.session import Session
from jobqueue.inspecting import Activity, ConnectionCheck, SeenWorker
from jobqueue.models import Job

_WINDOW: Final = timedelta(minutes=1)


class MemoryInspecting:
    """The Inspecting over a MemoryQueue."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def recent_activity(self) -> Activity:
        """Say what has become of the jobs that were claimed, and by whom."""
        now = self._session.moment()
        with self._session.reading() as rows:
            claimed = [job for job in rows.jobs.values() if job.claimed_by is not None and job.started]
        ended = [job for job in claimed if job.cancelled_at is None]
        stopped = [job for job in ended if job.stopped_at is not None and job.stopped_at >= now - _WINDOW]
        names = sorted({_process_of(job) for job in claimed})
        return Activity(
            num_stopped=len(stopped),
            num_failed=sum(job.has_error for job in stopped),
            within=_WINDOW,
            workers=tuple(_seen(name, [job for job in claimed if _process_of(job) == name], now) for name in names),
        )

    def check_connection(self) -> ConnectionCheck:
        """Say that it is here."""
        self._session.moment()
        return ConnectionCheck(backend="memory")


def _process_of(job: Job) -> str:
    return (job.claimed_by or "").rpartition(":")[0]


def _seen(name: str, jobs: Sequence[Job], now: datetime) -> SeenWorker:
    moments = [moment for job in jobs for moment in (job.started_at, job.worker_alive_at, job.stopped_at) if moment]
    return SeenWorker(
        name=name,
        num_running=sum(not job.stopped for job in jobs),
        silent_for=max(now - max(moments), timedelta(0)),
    )
