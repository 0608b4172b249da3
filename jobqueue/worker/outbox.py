"""Outcomes on their way to the database, and where each of them is. Knows nothing of threads."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import chain

import attrs

from jobqueue.models import Fence
from jobqueue.outcomes import Outcome


@attrs.define(eq=False)
class HandedIn:
    """An outcome on its way to the database."""

    outcome: Outcome
    since: float
    sent: tuple[Outcome, ...] = ()
    """What was on its way to the database when that was broken off, and may have been saved without our knowing: this
    outcome itself, or the one that an atomic handler was about to commit."""


@attrs.define(eq=False)
class Outbox:
    """The outcomes of a pool that are not saved yet. Called under the dispatcher's lock."""

    waiting: list[HandedIn] = attrs.field(factory=list[HandedIn])
    """Handed in, for the next trip to take."""
    locked: list[HandedIn] = attrs.field(factory=list[HandedIn])
    """Set apart, because somebody else has locked the rows that they need."""
    _on_trips: list[Sequence[HandedIn]] = attrs.field(factory=list[Sequence[HandedIn]])

    @property
    def is_empty(self) -> bool:
        """Whether all outcomes have reached the database."""
        return not (self.waiting or self._on_trips or self.locked)

    @property
    def is_moving(self) -> bool:
        """Whether outcomes wait for a trip, or are on one."""
        return bool(self.waiting or self._on_trips)

    def fences(self) -> list[Fence]:
        """Return the claims of all outcomes."""
        return [kept.outcome.fence for kept in chain(self.waiting, *self._on_trips, self.locked)]

    def load(self) -> Sequence[HandedIn]:
        """Put what waits on a trip; of two outcomes of one job the first, since trips tell jobs by their ids."""
        first = {kept.outcome.fence.job_id.int: kept for kept in reversed(self.waiting)}
        carried, self.waiting = self.waiting, []
        if len(first) < len(carried):
            self.waiting = [kept for kept in carried if first[kept.outcome.fence.job_id.int] is not kept]
            carried = [kept for kept in carried if first[kept.outcome.fence.job_id.int] is kept]
        self._on_trips.append(carried)
        return carried

    def load_locked(self) -> Sequence[HandedIn]:
        """Put one outcome that is set apart, or those of one bundle, on a trip."""
        first = self.locked[0].outcome

        def goes_along(kept: HandedIn) -> bool:
            return kept.outcome is first or (first.bundle_id is not None and kept.outcome.bundle_id == first.bundle_id)

        carried = [kept for kept in self.locked if goes_along(kept)]
        self.locked = [kept for kept in self.locked if not goes_along(kept)]
        self._on_trips.append(carried)
        return carried

    def unload(self, carried: Sequence[HandedIn], *, unsent: Sequence[HandedIn], locked: Sequence[HandedIn]) -> None:
        """Take *carried* off its trip, and keep what it could not save."""
        self._on_trips = [trip for trip in self._on_trips if trip is not carried]
        self.waiting[:0] = unsent
        self.locked += locked


def shortest_delay(carried: Iterable[HandedIn]) -> timedelta | None:
    """Return after which time the first of the jobs that are put off will be due; None when none is."""
    return min((kept.outcome.delay for kept in carried if kept.outcome.delay is not None), default=None)
