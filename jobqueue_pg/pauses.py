"""Pauses as rows in PostgreSQL: each method is one statement."""

from datetime import datetime, timedelta

from jobqueue.pauses import PausedType
from jobqueue_pg.database import Database
from jobqueue_pg.queries.pauses import GET_PAUSED_TYPES, PAUSE_TYPE, RESUME_TYPE
from jobqueue_pg.rows import Row
from jobqueue_pg.schema import channel_prefix


class PostgresPauses:
    """The Pauses on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._job_available = f"{channel_prefix(database.schema)}job_available"

    def pause(
        self, type: str, *, until: datetime | None, lasts: timedelta | None, reason: str | None
    ) -> PausedType | None:
        """Pause a type or pattern."""
        found = self._database.fetch(
            PAUSE_TYPE,
            {
                "type": type,
                "until": until,
                "seconds": None if lasts is None else lasts.total_seconds(),
                "reason": reason,
                "job_available": self._job_available,
            },
        )
        return _paused(found[0]) if found else None

    def resume(self, type: str) -> bool:
        """End the pause of a type or pattern, and tell of what waits."""
        found = self._database.fetch(RESUME_TYPE, {"type": type, "job_available": self._job_available})
        return any(held for (held,) in found)

    def paused_types(self) -> tuple[PausedType, ...]:
        """Return what is paused now."""
        return tuple(_paused(row) for row in self._database.fetch(GET_PAUSED_TYPES, {}))


def _paused(row: Row) -> PausedType:
    job_type, until, reason, paused_at, is_back_off = row
    return PausedType(type=job_type, until=until, reason=reason, paused_at=paused_at, is_back_off=is_back_off)
