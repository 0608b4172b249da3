"""Finds the claims that fell silent, and frees their jobs, at a cost that does not grow with the jobs that have ended.

No index leads to the running jobs, since each finish would have to change it. One leads to claims by when they were
made: each is looked at once, when it is old enough to have been silent for too long, and if it is open then, its job is
remembered, and looked at again and again.

What comes to light later than that (the claim of a transaction that was open for longer; claims from before this
process began, or before the clock was set back) is found by sweeps through all claims, from the newest on, a few
thousand at a time, for a small share of the time.
"""

import time
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from jobqueue.store import SilenceCounts
from jobqueue_pg.database import Database
from jobqueue_pg.queries import maintaining as queries
from jobqueue_pg.rows import Row

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

    def reap(self, dead_for: timedelta, max_rescues: int, if_counts: SilenceCounts, *, gradually: bool) -> list[Row]:
        """Free jobs, and return what REAP_JOBS does: of all claims, or *gradually* of those that are known by now."""

        def look_and_reap(connection: psycopg.Connection[Any]) -> list[Row]:
            # What is now was settled when the transaction began: claims are judged by that, even if the server, or this
            # process, is frozen before the next statement.
            ((now,),) = self._database.execute(connection, queries.BEGIN_TO_REAP, {}).fetchall()
            ids = self._look(connection, now - dead_for, now) if gradually else self._find_all(connection)
            # Asked in any case: the answer depends on when it was asked before.
            if not if_counts(now) or not ids:
                return []
            which = {"ids": list(ids), "dead_for": dead_for, "max_rescues": max_rescues}
            return self._database.execute(connection, queries.REAP_JOBS, which).fetchall()

        if gradually:
            self._open |= self._sweep.go_on()
        return self._database.transact(look_and_reap)

    def _find_all(self, connection: psycopg.Connection[Any]) -> set[UUID]:
        self._database.execute(connection, queries.PREPARE_TO_FIND_ALL, {})
        return {id for (id,) in self._database.execute(connection, queries.FIND_ALL_CLAIMS, {})}

    def _look(self, connection: psycopg.Connection[Any], until: datetime, now: datetime) -> set[UUID]:
        """Return the claims that are open: of those known so far, and those made from the last *until* on."""
        if self._looked_at is None or not timedelta(0) <= now - self._looked_at <= _LONGEST_STEP:
            self._looked_until = until
            self._sweep.begin_anew()
        which = {"ids": list(self._open), "since": self._looked_until, "until": until}
        self._open = {id for (id,) in self._database.execute(connection, queries.FIND_CLAIMS, which)}
        self._looked_at, self._looked_until = now, until
        return self._open


class _Sweep:
    """Goes through all claims, from the newest on, then again from there."""

    # About 10 ms each.
    _CLAIMS_AT_A_TIME: Final = 5000
    # Of the time: at first, when all that is old is unknown; and later, for what may have slipped through.
    _FIRST_SHARE: Final = 0.1
    _SHARE: Final = 0.005
    _LONGEST_PAUSE: Final = 5.0
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

    def go_on(self) -> set[UUID]:
        """Return those that are open of the next claims: as many as the share of the time allows for."""
        now = time.monotonic()
        self._seconds_left += self._share * min(now - self._went_on_at, self._LONGEST_PAUSE)
        self._went_on_at = now
        found = set[UUID]()
        while self._seconds_left >= 0:
            began_at = time.monotonic()
            found |= self._read()
            self._seconds_left -= time.monotonic() - began_at
            if self._below == self._TOP:
                self._seconds_left = min(self._seconds_left, 0)
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
