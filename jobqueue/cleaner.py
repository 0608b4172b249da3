"""Walks through jobs and bundles, the oldest first, and removes what was kept for long enough."""

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final, Protocol
from uuid import UUID

from jobqueue.cleaning import Cleaning, CleanResult, Found
from jobqueue.errors import BackendError, RefusedError, UnavailableError
from jobqueue.retention import Retention

logger = logging.getLogger(__name__)

_JOBS_AT_A_TIME: Final = 1000
_BUNDLES_AT_A_TIME: Final = 100
_BUNDLES_TO_REMOVE: Final = 20

_SECONDS_BETWEEN_LOOKS: Final = 300.0
# What stays is read again and again, for 0.5 % of the time at most.
_SECONDS_BETWEEN_SWEEPS: Final = 3600.0
_REST_FOR_WASTE: Final = 200
_STUCK_REMEMBERED: Final = 1000
_ZERO: Final = timedelta(0)
_LONGEST_BEHIND: Final = timedelta(hours=1)

OnProgress = Callable[[CleanResult], object]


class _Find(Protocol):
    def __call__(self, retention: Retention, *, after: object, limit: int) -> Found: ...


class _Walk:
    """One way through the rows: looks at some, remembers where it was, and removes what it has found.

    What cannot be removed together is removed in halves, down to single rows; so a row that must not go holds up none
    of the others. The place is passed before anything is removed: whatever fails, the walk goes on behind it.
    """

    def __init__(
        self,
        find: _Find,
        remove: Callable[[Retention, tuple[UUID, ...]], CleanResult],
        retention: Retention,
        *,
        what: str,
        look_at: int,
        remove_at_once: int,
    ) -> None:
        self._find = find
        self._remove = remove
        self._retention = retention
        self._what = what
        self._look_at = look_at
        self._remove_at_once = remove_at_once
        self._pending = deque[tuple[UUID, ...]]()
        self._stuck = set[UUID]()
        self.wasted = 0.0
        """Seconds in which rows were looked at that stay."""
        self.begin()

    def begin(self) -> None:
        """Go back to the beginning."""
        self._place: object = None
        self._is_end = False

    def look_again(self) -> None:
        """Go on from the end, where there may be more by now."""
        self._is_end = False

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing to do."""
        return self._is_end and not self._pending

    def step(self) -> CleanResult:
        """Run one statement."""
        began_at = time.monotonic()
        if not self._pending:
            found = self.look()
            self.wasted += (time.monotonic() - began_at) * (1 - len(found.ids) / max(found.number, 1))
            return CleanResult()
        ids = self._pending.popleft()
        try:
            return self._remove(self._retention, ids)
        except RefusedError as error:
            self.wasted += time.monotonic() - began_at
            self._take_apart(ids, error)
            return CleanResult()

    def look(self) -> Found:
        """Find what comes next, and have it removed by the next steps."""
        found = self._find(self._retention, after=self._place, limit=self._look_at)
        self._place, self._is_end = found.place, found.is_end
        size = self._remove_at_once
        self._pending.extend(found.ids[start : start + size] for start in range(0, len(found.ids), size))
        return found

    def count(self) -> int:
        """Return how much of what comes next is to be removed."""
        number = len(self.look().ids)
        self._pending.clear()
        return number

    def _take_apart(self, ids: tuple[UUID, ...], error: RefusedError) -> None:
        if len(ids) > 1:
            half = len(ids) // 2
            self._pending.extendleft((ids[half:], ids[:half]))
            return
        for stuck in ids:
            if stuck not in self._stuck and len(self._stuck) < _STUCK_REMEMBERED:
                self._stuck.add(stuck)
                logger.error("%s %s is old enough to be removed, but cannot be: %s", self._what, stuck, error)


class Cleaner:
    """Removes what *retention* does not keep, bit by bit or all at once; for one thread.

    Bundles are walked through by their ids; jobs from the oldest on. Where the walk through the jobs has ended, it goes
    on some minutes later; what had to stay is looked at again after an hour, or more where that is much. Who goes on so
    for long *keeps_behind*: it passes by jobs no sooner than they have had some time to stop, and be old enough.
    """

    def __init__(self, cleaning: Cleaning, retention: Retention, *, keeps_behind: bool = False) -> None:
        self._retention = retention
        behind = min(retention.youngest or _ZERO, _LONGEST_BEHIND) if keeps_behind else _ZERO
        self._bundles = _Walk(
            cleaning.find_bundles,
            cleaning.remove_bundles,
            retention,
            what="bundle",
            look_at=_BUNDLES_AT_A_TIME,
            remove_at_once=_BUNDLES_TO_REMOVE,
        )
        self._jobs = _Walk(
            partial(cleaning.find_jobs, behind=behind),
            cleaning.remove_jobs,
            retention,
            what="job",
            look_at=_JOBS_AT_A_TIME,
            remove_at_once=_JOBS_AT_A_TIME,
        )
        now = time.monotonic()
        # Many processes that were started together should not walk side by side.
        self._looks_at = now + _SECONDS_BETWEEN_LOOKS * random.uniform(0.1, 0.4)  # noqa: S311 - spreads processes
        self._sweeps_at = now + _SECONDS_BETWEEN_SWEEPS

    @property
    def is_due(self) -> bool:
        """Whether there is something to do, or to look for."""
        return not self._retention.keeps_all and time.monotonic() >= self._looks_at

    def go_on(self, seconds: float) -> CleanResult:
        """Remove for about that many *seconds*, or until there is nothing more to remove for now."""
        now = time.monotonic()
        if self._has_ended:
            self._begin(now)
        until = now + seconds
        removed = CleanResult()
        try:
            while not self._has_ended and time.monotonic() < until:
                removed += self._step()
        except UnavailableError:
            raise
        except BackendError:
            # What is wrong will be so for a while: a right that is missing, or a row that is locked.
            self._rest()
            raise
        if self._has_ended:
            self._rest()
        return removed

    @property
    def _has_ended(self) -> bool:
        return self._bundles.has_ended and self._jobs.has_ended

    def _begin(self, now: float) -> None:
        if now < self._sweeps_at:
            self._jobs.look_again()
            return
        self._bundles.begin()
        self._jobs.begin()
        self._sweeps_at = now + _SECONDS_BETWEEN_SWEEPS

    def _step(self) -> CleanResult:
        return (self._jobs if self._bundles.has_ended else self._bundles).step()

    def _rest(self) -> None:
        now = time.monotonic()
        self._looks_at = now + _SECONDS_BETWEEN_LOOKS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads processes
        wasted = self._bundles.wasted + self._jobs.wasted
        self._bundles.wasted = self._jobs.wasted = 0.0
        self._sweeps_at = max(self._sweeps_at, now + _REST_FOR_WASTE * wasted)

    def clean_all(self, on_progress: OnProgress | None) -> CleanResult:
        """Remove all that there is to remove, once; tell *on_progress* how much it was so far, after each statement."""
        removed = CleanResult()
        while not self._has_ended:
            before, removed = removed, removed + self._step()
            if on_progress is not None and removed != before:
                on_progress(removed)
        return removed

    def count_all(self) -> CleanResult:
        """Count what ``clean_all`` would remove, and remove nothing; members of bundles are not counted."""
        counted = CleanResult()
        for walk in (self._bundles, self._jobs):
            while not walk.has_ended:
                number = walk.count()
                counted += CleanResult(bundles=number) if walk is self._bundles else CleanResult(jobs=number)
        return counted
