"""The thread that looks after the whole queue: takes jobs up whose workers died, removes what was kept long enough."""

import logging
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from jobqueue.cleaner import Cleaner
from jobqueue.errors import BackendError, UnavailableError
from jobqueue.events import JobRescued
from jobqueue.health import Health, Vital
from jobqueue.outcomes import Rescue
from jobqueue.settings import WorkerSettings
from jobqueue.store import WorkerStore
from jobqueue.threads import StoppableThread
from jobqueue.worker.contact import Contact
from jobqueue.worker.dispatcher import Dispatcher
from jobqueue.worker.silence import Silence

logger = logging.getLogger(__name__)

# Whoever has waited for a bundle, or listens, reads it when it hears of it, or looks twice a second.
_BUNDLES_KEPT_FOR: Final = timedelta(seconds=2)
# Trips have one lane less meanwhile.
_SECONDS_TO_CLEAN: Final = 0.5
_LONGEST_INTERVAL: Final = timedelta(seconds=15)
_LONGEST_URGENT_INTERVAL: Final = timedelta(seconds=4)


class Maintenance(StoppableThread):
    """Every process runs it, at its own moments; there is no leader, and no handler is needed."""

    def __init__(
        self,
        store: WorkerStore,
        settings: WorkerSettings,
        *,
        contact: Contact,
        dispatcher: Dispatcher,
        health: Health,
        tell: Callable[[JobRescued], object] = lambda _: None,
    ) -> None:
        super().__init__("jobqueue-maintenance")
        self._store = store
        self._settings = settings
        self._contact = contact
        self._dispatcher = dispatcher
        self._tell = tell
        self._reaper = health.vital("reaper")
        self._sweeper = health.vital("sweeper of bundles")
        self._cleaner = Cleaner(store.cleaning, store.retention, keeps_behind=True)
        self._retention = health.vital("retention")
        self._silence = Silence(settings.dead_for)
        self._is_urgent = True
        self._may_have_bundles = True

    def run(self) -> None:
        """Maintain until stopped."""
        # The first look at the clock comes soon: it begins the time for which silence has to be listened to.
        pause = self._interval * random.uniform(0, 0.2)  # noqa: S311 - spreads processes
        while not self._stopping.wait(pause):
            self._attempt(self.tick)
            pause = self._interval * random.uniform(0.8, 1.2)  # noqa: S311 - spreads processes

    @property
    def _interval(self) -> float:
        longest = _LONGEST_URGENT_INTERVAL if self._is_urgent else _LONGEST_INTERVAL
        return min(self._settings.dead_for / 4, longest).total_seconds()

    def tick(self) -> None:
        """Do all that is to be done, once, on a lane of its own: it may take long, and must not silence the beats."""
        # Unless the round says otherwise: one that fails keeps no bundle from being deleted.
        self._is_urgent = self._may_have_bundles = True
        with self._dispatcher.lane():
            try:
                with self._contact.watched():
                    self._try(self._make_round, self._reaper)
                    if self._may_have_bundles:
                        self._try(self._delete_bundles, self._sweeper)
                    if self._cleaner.is_due:
                        self._try(self._clean, self._retention)
            except UnavailableError as error:
                logger.debug("maintenance has to wait: %s", error)

    def _try(self, task: Callable[[], object], vital: Vital) -> None:
        try:
            task()
        except UnavailableError:
            raise
        except BackendError as error:
            if vital.failed(error):
                logger.error("the %s fails, and is tried again: %s", vital.name, error)  # noqa: TRY400 - it says it all
        else:
            if vital.succeeded():
                logger.warning("the %s succeeds again", vital.name)

    def _make_round(self) -> None:
        done = self._store.make_round(
            self._settings.dead_for,
            self._settings.max_rescues,
            # What keeps a round from its end may be this: the next one does without.
            kept_for=None if self._reaper.is_down else _BUNDLES_KEPT_FOR,
            if_counts=self._silence_counts,
        )
        self._is_urgent, self._may_have_bundles = done.is_urgent, done.has_succeeded_bundles
        self._report(done.rescues)

    def _delete_bundles(self) -> None:
        # Where some have come to their end, more will.
        self._is_urgent |= self._store.delete_succeeded_bundles(_BUNDLES_KEPT_FOR) > 0

    def _clean(self) -> None:
        removed = self._cleaner.go_on(_SECONDS_TO_CLEAN)
        self._is_urgent |= self._cleaner.is_due
        if removed.jobs or removed.bundles:
            logger.debug("removed %d jobs and %d bundles that were kept for long enough", removed.jobs, removed.bundles)

    def _silence_counts(self, now: datetime) -> bool:
        # Who was cut off cannot tell whether the others were silent, or it was deaf.
        return self._silence.counts_at(now) and self._contact.is_steady

    def _report(self, rescues: Iterable[Rescue]) -> None:
        for rescue in rescues:
            level = logging.ERROR if rescue.failed else logging.WARNING
            logger.log(
                level,
                "the worker %s of job %s (%s) fell silent: %s",
                rescue.claimed_by or "(unknown)",
                rescue.job_id,
                rescue.job_type,
                f"failed, after {rescue.rescue_count} rescues"
                if rescue.failed
                else f"taken up again, rescue {rescue.rescue_count}",
                extra={"job_id": str(rescue.job_id), "job_type": rescue.job_type},
            )
            self._tell(
                JobRescued(
                    id=rescue.job_id,
                    type=rescue.job_type,
                    claimed_by=rescue.claimed_by,
                    rescue_count=rescue.rescue_count,
                    failed=rescue.failed,
                )
            )
