"""Pauses in memory, as applications use them."""

from datetime import datetime, timedelta

from jobqueue.backends.memory.change import Change
from jobqueue.backends.memory.session import Session
from jobqueue.pauses import PausedType, covers


class MemoryPauses:
    """The Pauses over a MemoryQueue."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pause(
        self, type: str, *, until: datetime | None, lasts: timedelta | None, reason: str | None
    ) -> PausedType | None:
        """Pause a type or pattern."""
        with self._session.changing() as change:
            end = until if lasts is None else change.now + lasts
            pause = PausedType(type=type, until=end, reason=reason, paused_at=change.now)
            if not pause.holds_at(change.now):
                return None
            change.rows.paused.put(pause)
            if end is not None:
                _tell_of_waiting(change, type)
            return pause

    def resume(self, type: str) -> bool:
        """End the pause of a type or pattern, and tell of what waits."""
        with self._session.changing() as change:
            held = change.rows.paused.remove(type, change.now)
            if held:
                _tell_of_waiting(change, type)
            return held

    def paused_types(self) -> tuple[PausedType, ...]:
        """Return what is paused now."""
        now = self._session.moment()
        with self._session.reading() as rows:
            return rows.paused.holding(now)


def _tell_of_waiting(change: Change, pattern: str) -> None:
    """Tell of one job of each type that waits, be it due or not: as long as it was paused, nobody knew of it."""
    waiting = [job for job in change.rows.jobs.values() if not job.started and covers(pattern, job.type)]
    for _, job in sorted({job.type: job for job in waiting}.items()):
        change.tell_available(job)
