"""Pauses as rows in PostgreSQL, and what claims say and know of them."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, LiteralString

import attrs

from jobqueue.pauses import PausedType, concerns
from jobqueue_pg.database import Database
from jobqueue_pg.queries.pauses import GET_PAUSED_TYPES, PAUSE_TYPE, RESUME_TYPE, TELL_OF_WAITING
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
        which = {
            "until": until,
            "seconds": None if lasts is None else lasts.total_seconds(),
            "reason": reason,
        }
        found = self._change(PAUSE_TYPE, type, which)
        return _paused(found) if found else None

    def resume(self, type: str) -> bool:
        """End the pause of a type or pattern, and tell of what waits."""
        found = self._change(RESUME_TYPE, type, {})
        return bool(found and found[0])

    def _change(self, statement: LiteralString, type: str, parameters: Mapping[str, object]) -> Row | None:
        """Run *statement*, which changes a pause and tells of what waits; then tell of what it could not see.

        Return what it says of the pause.
        """
        which = {**parameters, "type": type, "job_available": self._job_available}
        for *pause, told in self._database.fetch(statement, {**which, "told": []}):
            if told is not None:
                self._database.fetch(TELL_OF_WAITING, {**which, "told": told})
            return tuple(pause)
        return None

    def paused_types(self) -> tuple[PausedType, ...]:
        """Return what is paused now."""
        return tuple(_paused(row) for row in self._database.fetch(GET_PAUSED_TYPES, {}))


@attrs.frozen
class KnownPauses:
    """What a claim has told of pauses: of each the type, for how many seconds it holds, and whether it may double."""

    rows: Sequence[tuple[str, float | None, bool]] = ()

    @classmethod
    def of_json(cls, text: str | None) -> "KnownPauses":
        """Read what the statement says; None: it says nothing."""
        return NO_PAUSES if text in {None, "[]"} else cls(json.loads(text or "[]"))

    @property
    def backed_off(self) -> frozenset[str]:
        """The types whose next back-off is longer than the last one."""
        return frozenset(job_type for job_type, _, may_double in self.rows if may_double)

    def first_end(self, types: Sequence[str]) -> timedelta | None:
        """Return how long it takes until the first of them ends that concern *types*."""
        ends = [seconds for paused, seconds, _ in self.rows if seconds is not None and concerns(paused, types)]
        return timedelta(seconds=min(ends)) if ends else None


NO_PAUSES: Final = KnownPauses()


def _paused(row: Row) -> PausedType:
    job_type, until, reason, paused_at, is_back_off = row
    return PausedType(type=job_type, until=until, reason=reason, paused_at=paused_at, is_back_off=is_back_off)
