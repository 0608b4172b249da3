"""Whether the silence of others counts: somebody who was deaf for a while cannot tell."""

from datetime import datetime, timedelta


class Silence:
    """Looks at the database's clock time and again, and counts for how long it has gone on without a leap.

    It leaps when the server was frozen or its clock was set, and when this process or its machine slept: live claims
    may then look as old as those of the dead, until their beats get through. A heartbeat interval is a third of
    *dead_for* at most, so that a leap by two thirds makes no live claim look dead.
    """

    def __init__(self, dead_for: timedelta) -> None:
        self._dead_for = dead_for
        self._longest_step = dead_for * 2 / 3
        self._began_at: datetime | None = None
        self._looked_at: datetime | None = None

    def counts_at(self, now: datetime) -> bool:
        """Take a look, at *now* by the database's clock: whether there was none of that for *dead_for*."""
        if self._looked_at is None or self._began_at is None or self._has_leapt(now - self._looked_at):
            self._began_at = now
        self._looked_at = now
        return now - self._began_at >= self._dead_for

    def _has_leapt(self, step: timedelta) -> bool:
        return not timedelta(0) <= step <= self._longest_step
