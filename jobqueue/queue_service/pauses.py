"""The part of the service that pauses."""

import builtins
from datetime import datetime, timedelta
from typing import Final

from jobqueue.errors import InvalidJobError
from jobqueue.limits import check_moment, check_text, check_type_or_pattern
from jobqueue.pauses import PausedType
from jobqueue.queue_service.changing import changing
from jobqueue.queue_service.opened import Opened

_LONGEST: Final = timedelta(days=365_000)


class Pauses(Opened):
    """Pauses are rows, which claims look at: no process is told, and none can miss it."""

    @changing
    def pause(self, type: str, until: datetime | timedelta | None = None, reason: str | None = None) -> PausedType:
        """Have no jobs of *type* claimed by any process."""
        check_type_or_pattern("type", type)
        if reason is not None:
            check_text("reason", reason)
        if until is not None and not isinstance(until, datetime | timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidJobError(
                f"until must be a datetime or a timedelta, not {builtins.type(until).__qualname__}", field="until"
            )
        pauses = self._open_store().pauses
        if isinstance(until, timedelta):
            paused = pauses.pause(type, until=None, lasts=_checked_length(until), reason=reason)
        else:
            paused = pauses.pause(type, until=check_moment("until", until), lasts=None, reason=reason)
        if paused is None:
            raise InvalidJobError(
                f"{type!r} cannot be paused until {until}, which has passed: resume() ends a pause", field="until"
            )
        return paused

    @changing
    def resume(self, type: str) -> bool:
        """End the pause of *type*."""
        return self._open_store().pauses.resume(check_type_or_pattern("type", type))

    def paused_types(self) -> list[PausedType]:
        """Read what is paused now."""
        return list(self._open_store().pauses.paused_types())


def _checked_length(length: timedelta) -> timedelta:
    if length <= timedelta(0):
        raise InvalidJobError(f"a pause has to last, which {length} does not: resume() ends one", field="until")
    if length > _LONGEST:
        raise InvalidJobError(f"a pause of {length} is too long: leave until out to pause for good", field="until")
    return length
