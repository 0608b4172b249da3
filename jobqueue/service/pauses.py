"""What the service pauses."""

from datetime import datetime, timedelta
from typing import Protocol

from jobqueue.pauses import PausedType


class Pauses(Protocol):
    """Have types of jobs not claimed for a while, by any process."""

    def pause(self, type: str, until: datetime | timedelta | None = None, reason: str | None = None) -> PausedType:
        """Have no jobs of *type*, a name or a pattern such as ``report:*`` or ``*``, claimed by any process.

        It is kept in the database, and ends when it is resumed, or *until* a moment, or a time from now by the
        database's clock. What runs goes on, and up to 20 ms of work that was claimed ahead. A type that is paused
        already is paused anew, with this *until* and *reason*. A pattern pauses all types that it covers, whatever
        handler they have; to resume one of them does not undo it. go-jobqueue's processes do not obey it.

        Raises:
            InvalidJobError: *type* is neither a job type nor a pattern, or *until* has passed or has no time zone.
        """
        ...

    def resume(self, type: str) -> bool:
        """End the pause of *type*, which is what was paused, name or pattern; return whether there was one.

        Idle workers look for its jobs at once.

        Raises InvalidJobError when *type* is neither a job type nor a pattern.
        """
        ...

    def paused_types(self) -> list[PausedType]:
        """Read what is paused now, by type."""
        ...
