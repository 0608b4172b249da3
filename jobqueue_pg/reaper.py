"""Finds the claims that fell silent, and frees their jobs, at a cost that does not grow with the jobs that have ended.

No index leads to the running jobs, since each finish would have to change it. One leads to claims by when they were
made: each is looked at once, when it is old enough to have been silent for too long, and if it is open then, its job is
remembered, and looked at again and again.

What comes to light later than that (the claim of a transaction that was open for longer; claims from before this
process began, or before the clock was set back) is found by sweeps through all claims, from the newest on, a few
thousand at a time, for a small share of the time, with a rest after each sweep.

So a process that waits has its reaper make one statement a round, and one more each minute.
"""

import time
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from jobqueue.outcomes import Rescue
from jobqueue.store import IN_DOUBT_AFTER, Round, SilenceCounts
from jobqueue_pg.database import Database
from jobqueue_pg.joining import Lent
from jobqueue_pg.queries import maintaining as queries
from jobqueue_pg.rows import rescue_of_row

# The claims made since the last look are read by one statement, unless they may be too many for that.
_LONGEST_STEP: Final = timedelta(minutes=1)


class Reaper:
    """Frees the jobs of silent claims in the tables of *database*; for one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sweep = _Sweep(database)
        self._open: set[UUID] = set()
        self._looked_at: datetime | None = None
        self._looked_until: datetime | None = None

    def make_round(
        self, dead_for: timedelta, max_rescues: int, kept_for: timedelta | None, if_counts: SilenceCounts
    ) -> Round:
        """Free the jobs of those claims that are known by now; ask for bundles to be deleted if there is *kept_for*."""
        self._open |= self._sweep.go_on()
        now, is_in_doubt, has_succeeded_bundles = self._look(dead_for, kept_for)
        rescues: list[Rescue] = []
        # Asked in any case: the answer depends on when it was asked before.
        if if_counts(now) and is_in_doubt:

            def free(connection: Lent) -> list[Rescue]:
                self._begin(connection)
                return self._free(connection, self._open, now, dead_for, max_rescues)

            rescues = self._database.transact(free)
        return Round(
            rescues=tuple(rescues),
            is_urgent=is_in_doubt or self._sweep.is_behind,
            has_succeeded_bundles=has_succeeded_bundles,
        )

    def _look(self, dead_for: timedelta, kept_for: timedelta | None) -> tuple[datetime, bool, bool]:
        """Find the claims that are open, of those known so far and those that have become old enough meanwhile."""
        which = {
            "ids": list(self._open),
            "since": self._looked_until,
            "dead_for": dead_for,
            "longest_step": _LONGEST_STEP,
            "in_doubt_after": IN_DOUBT_AFTER,
            "kept_for": kept_for,
        }
        ((now, ids, is_in_doubt, has_succeeded_bundles),) = self._database.fetch(queries.LOOK_AROUND, which)
        if self._looked_at is None or not timedelta(0) <= now - self._looked_at <= _LONGEST_STEP:
            self._sweep.begin_anew()
        self._open = set(ids)
        self._looked_at, self._looked_until = now, now - dead_for
        return now, is_in_doubt, has_succeeded_bundles

    def reap_all(self, dead_for: timedelta, max_rescues: int, if_counts: SilenceCounts) -> list[Rescue]:
        """Free the jobs of all claims that are silent, whatever it takes to find them."""

        def find_and_free(connection: Lent) -> list[Rescue]:
            now = self._begin(connection)
            self._database.execute(connection, queries.PREPARE_TO_FIND_ALL, {})
            ids = {id for (id,) in self._database.execute(connection, queries.FIND_ALL_CLAIMS, {})}
            return self._free(connection, ids, now, dead_for, max_rescues) if if_counts(now) else []

        return self._database.transact(find_and_free)

    def _begin(self, connection: Lent) -> datetime:
        now: datetime
        ((now,),) = self._database.execute(connection, queries.BEGIN_TO_REAP, {}).fetchall()
        return now

    def _free(
        self, connection: Lent, ids: set[UUID], now: datetime, dead_for: timedelta, max_rescues: int
    ) -> list[Rescue]:
        which = {"ids": list(ids), "judged_at": now, "dead_for": dead_for, "max_rescues": max_rescues}
        return [rescue_of_row(row) for row in self._database.execute(connection, queries.REAP_JOBS, which)]


class _Sweep:
    """Goes through all claims, from the newest on, then again from there."""

    # About 10 ms each.
    _CLAIMS_AT_A_TIME: Final = 5000
    # Of the time: at first, when all that is old is unknown; and later, for what may have slipped through.
    _FIRST_SHARE: Final = 0.1
    _SHARE: Final = 0.005
    _LONGEST_PAUSE: Final = 20.0
    _SECONDS_OF_REST: Final = 60.0
    _TOP: Final = "infinity"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._went_on_at = time.monotonic()
        self._seconds_left = 0.0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have all claims looked at, soon."""
        self._below = self._TOP
        self._share = self._FIRST_SHARE
        self._rests_until = 0.0

    @property
    def is_behind(self) -> bool:
        """Whether there are claims that nobody has looked at, nor was there when they were made."""
        return self._share == self._FIRST_SHARE

    def go_on(self) -> set[UUID]:
        """Return those that are open of the next claims: as many as the share of the time allows for."""
        now = time.monotonic()
        passed, self._went_on_at = now - self._went_on_at, now
        found = set[UUID]()
        if now < self._rests_until:
            return found
        self._seconds_left += self._share * min(passed, self._LONGEST_PAUSE)
        while self._seconds_left >= 0:
            began_at = time.monotonic()
            found |= self._read()
            self._seconds_left -= time.monotonic() - began_at
            if self._below == self._TOP:
                self._seconds_left = min(self._seconds_left, 0)
                self._rests_until = time.monotonic() + self._SECONDS_OF_REST
                break
        return found

    def _read(self) -> set[UUID]:
        which = {"below": self._below, "number": self._CLAIMS_AT_A_TIME}
        # The moment stays as the server spells it, which has some that Python cannot hold.
        ((ids, last),) = self._database.fetch(queries.SWEEP_CLAIMS, which)
        if last is None:
            self._share = self._SHARE
        self._below = last or self._TOP
        return set(ids)
