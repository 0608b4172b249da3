"""The types of a queue that are paused: the twin of the table paused_type."""

from datetime import datetime, timedelta

import attrs

from jobqueue.pauses import LONGEST_BACK_OFF, SHORTEST_BACK_OFF, PausedType, covers

_BACK_OFFS_KEPT_FOR = timedelta(hours=1)


@attrs.define
class _Row:
    pause: PausedType
    back_off: timedelta | None = None


class Paused:
    """Pauses by their types and patterns; one that has ended is here until somebody pauses something else."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def put(self, pause: PausedType) -> None:
        """Pause, in place of what was there."""
        kept = {name: row for name, row in self._rows.items() if not _is_over(row, pause.paused_at)}
        self._rows = kept | {pause.type: _Row(pause)}

    def remove(self, type: str, now: datetime) -> bool:
        """Resume; return whether there was a pause that held."""
        row = self._rows.pop(type, None)
        return row is not None and row.pause.holds_at(now)

    def holding(self, now: datetime) -> tuple[PausedType, ...]:
        """Return those that hold, by type."""
        return tuple(row.pause for _, row in sorted(self._rows.items()) if row.pause.holds_at(now))

    def holds(self, job_type: str, now: datetime) -> bool:
        """Whether a type is paused."""
        return any(covers(pause.type, job_type) for pause in self.holding(now))

    def backed_off(self) -> frozenset[str]:
        """Return the types whose next back-off is longer than the last one."""
        return frozenset(name for name, row in self._rows.items() if row.back_off)

    def back_off(self, type: str, reason: str, ran_for: timedelta, now: datetime) -> None:
        """Pause a type for twice as long as the last time, if the job was started after that."""
        row = self._rows.get(type)
        until = None if row is None else row.pause.until
        if row is None or (row.back_off is None and not row.pause.holds_at(now)):
            length = SHORTEST_BACK_OFF
        elif row.back_off is None:
            return
        elif until is not None and until > now - ran_for:
            length = max(row.back_off, SHORTEST_BACK_OFF)
        else:
            length = min(max(2 * row.back_off, SHORTEST_BACK_OFF), LONGEST_BACK_OFF)
        pause = PausedType(type=type, until=now + length, reason=reason, paused_at=now, is_back_off=True)
        self._rows[type] = _Row(pause, length)

    def end_back_off(self, type: str, now: datetime) -> None:
        """Have the next back-off begin anew; a pause that holds goes on to its end."""
        row = self._rows.get(type)
        if row is None or row.back_off is None:
            return
        if row.pause.holds_at(now):
            row.back_off = timedelta(0)
        else:
            del self._rows[type]


def _is_over(row: _Row, now: datetime) -> bool:
    kept_for = timedelta(0) if row.back_off is None else _BACK_OFFS_KEPT_FOR
    return not row.pause.holds_at(now - kept_for)
