"""One trip to the database and back, and what to make of how it went. Knows nothing of who waits for it."""

import logging
import threading
import time
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from uuid import UUID

import attrs

from jobqueue.errors import BackendError, LockTimeoutError, RefusedError, UnavailableError
from jobqueue.health import Health
from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Trip
from jobqueue.settings import WorkerSettings
from jobqueue.store import WorkerStore
from jobqueue.worker.contact import Contact
from jobqueue.worker.demand import TripRequest
from jobqueue.worker.lost_claims import LostClaims
from jobqueue.worker.outbox import HandedIn
from jobqueue.worker.saving import Saving

logger = logging.getLogger(__name__)


@attrs.frozen
class Arrival:
    """How a trip ended."""

    trip: Trip | None = None
    """What it brought; None when it only saved, or came to nothing."""
    unsent: Sequence[HandedIn] = ()
    """Outcomes that it could not save because the database did not answer."""
    locked: Sequence[HandedIn] = ()
    """Outcomes that need a row which somebody else holds."""
    kept_until: float = 0.0
    """Until when, by the monotonic clock, nobody can take away what was claimed, even if nobody beats for it."""


class Carrier:
    """Makes trips for the workers of a pool."""

    def __init__(
        self,
        store: WorkerStore,
        settings: WorkerSettings,
        *,
        name: str,
        contact: Contact,
        lost_claims: LostClaims,
        health: Health,
    ) -> None:
        self._store = store
        self._settings = settings
        self._name = name
        self._contact = contact
        self._lost_claims = lost_claims
        self._health = health
        self._vital = health.vital("trips")

    def travel(self, carried: Sequence[HandedIn], request: TripRequest) -> Arrival:
        """Save what is carried and claim what is requested; BackendErrors are dealt with here."""
        outcomes = [kept.outcome for kept in carried]
        asked_at = time.monotonic()
        try:
            with self._contact.watched():
                trip = self._store.make_trip(
                    outcomes, request.types, request.limit, self._claimant(), without=request.without
                )
        except (LockTimeoutError, RefusedError) as error:
            if not outcomes:
                self._fail("no job can be claimed", error)
                return Arrival()
            logger.info("a trip with %d outcomes is taken apart: %s", len(outcomes), type(error).__qualname__)
            return (
                self._save_without_bundles(carried) if isinstance(error, LockTimeoutError) else self.save_apart(carried)
            )
        except UnavailableError:
            return self._broken_off(carried)
        except BackendError as error:
            self._fail("trips fail, and are tried again", error)
            return self._broken_off(carried)
        if self._vital.succeeded():
            logger.warning("trips succeed again")
        self._lost_claims.watch([job.fence for job in trip.claimed], asked_at)
        self._settle(carried, trip.saved)
        return Arrival(trip, kept_until=asked_at + self._settings.dead_for.total_seconds())

    def _fail(self, what: str, error: BackendError) -> None:
        if self._vital.failed(error):
            logger.error("%s: %s", what, error)

    def _claimant(self) -> Claimant:
        return Claimant(
            name=f"{self._name}:{threading.current_thread().name}",
            lease=self._settings.dead_for,
            beats=self._settings.heartbeat_interval is not None,
        )

    def _save_without_bundles(self, carried: Sequence[HandedIn]) -> Arrival:
        """Save what needs no bundle's row: whoever has locked one must not hold up the rest, nor their beats, again."""
        loose = [kept for kept in carried if kept.outcome.bundle_id is None]
        bundled = [kept for kept in carried if kept.outcome.bundle_id is not None]
        arrival = self.save_apart(loose) if loose else Arrival()
        return attrs.evolve(arrival, locked=[*arrival.locked, *bundled])

    def save_apart(self, carried: Sequence[HandedIn]) -> Arrival:
        """Save what is carried, so that an outcome which the database refuses does not hold up the others."""
        by_fence = {kept.outcome.fence: kept for kept in carried}
        saving = Saving(self._store, self._health)
        saving.save([kept.outcome for kept in carried])
        self._settle([by_fence[outcome.fence] for outcome in saving.heard_of], saving.saved)
        for outcome in saving.given_up:
            self._lost_claims.forget(outcome.fence)
        left = self._broken_off([by_fence[outcome.fence] for outcome in saving.unsent])
        return attrs.evolve(left, locked=[by_fence[outcome.fence] for outcome in saving.locked])

    def _broken_off(self, carried: Sequence[HandedIn]) -> Arrival:
        for kept in carried:
            if kept.outcome not in kept.sent:
                kept.sent += (kept.outcome,)
        return Arrival(unsent=carried)

    def _settle(self, carried: Collection[HandedIn], saved: AbstractSet[UUID]) -> None:
        """Tell of outcomes that were not saved, because their claims had been lost."""
        if len(saved) < len(carried):
            for kept in carried:
                fence = kept.outcome.fence
                if fence.job_id not in saved and not self._was_saved_before(kept):
                    self._health.count("refused_outcomes")
                    self._lost_claims.note(fence, f"its outcome ({kept.outcome.kind}) was refused")
        self._lost_claims.forget(*[kept.outcome.fence for kept in carried])

    def _was_saved_before(self, kept: HandedIn) -> bool:
        """Whether an earlier trip, of which nobody has heard how it ended, seems to have saved it."""
        if not kept.sent:
            return False
        try:
            job = self._lost_claims.job_of(kept.outcome.fence)
        except BackendError:
            return True  # nobody can tell
        return any(outcome.is_shown_by(job) for outcome in kept.sent)

    def stands(self, job: Job) -> bool:
        """Whether nobody can have taken the claim on *job* away by now."""
        return time.monotonic() < self._lost_claims.kept_until(job.fence)
