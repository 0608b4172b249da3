"""Jobs claimed by hand, for those who run them in a way of their own: no worker thread, no handler."""

import logging
import os
import platform
import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Final
from weakref import WeakSet

from jobqueue.claim import Claim
from jobqueue.errors import BackendError, ClosedError, JobQueueError
from jobqueue.execution import outcome_of_failure, run_error_of
from jobqueue.job_context import JobContext
from jobqueue.limits import check_type_or_pattern
from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Outcome, fence_of
from jobqueue.registry import default_registry
from jobqueue.service import Service
from jobqueue.store import WorkerStore
from jobqueue.threads import StoppableThread

logger = logging.getLogger(__name__)

_LOCK_TIMEOUT: Final = timedelta(seconds=2)
_SECONDS_TO_JOIN: Final = 5.0


class Claims:
    """All claims that were made by hand through one service, and the thread that beats for them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._claims = WeakSet[Claim]()
        self._store: WorkerStore | None = None
        self._beats: _Beats | None = None
        self._closed = False

    def claim(self, types: str | Iterable[str], limit: int) -> list[Claim]:
        """Claim up to *limit* due jobs of *types*: names and patterns.

        Raises:
            InvalidJobError: one of *types* is neither.
        """
        names = [check_type_or_pattern("types", name) for name in ([types] if isinstance(types, str) else types)]
        settings = self._service.settings
        claimant = Claimant(
            name=f"{platform.node()}:{os.getpid()}:{threading.current_thread().name}",
            lease=settings.dead_for,
            beats=settings.heartbeat_interval is not None,
        )
        store = self._opened_store()
        claims = [
            Claim(job, store=store, health=self._service.vitals, failure_of=self._failure_of)
            for job in store.claim_jobs(names, limit, claimant)
        ]
        with self._lock:
            self._claims.update(claims)
        return claims

    def _failure_of(self, job: Job, error: BaseException) -> Outcome:
        return outcome_of_failure(
            job,
            JobContext(job, service=self._service),
            default_registry.find(job.type),
            default_registry.schedule_retry_of(job.type),
            run_error_of(error),
        )

    def _opened_store(self) -> WorkerStore:
        with self._lock:
            if self._closed:
                raise ClosedError("the job queue service was closed: connect again")
            if self._store is None:
                self._store = self._service.store.for_workers(lock_timeout=_LOCK_TIMEOUT)
            interval = self._service.settings.heartbeat_interval
            if self._beats is None and interval is not None:
                self._beats = _Beats(self, interval)
                self._beats.start()
            return self._store

    def beat(self) -> None:
        """Beat for all claims that have not ended."""
        claims = self._open_claims()
        store = self._store
        if not claims or store is None:
            return
        vital = self._service.vitals.vital("claims")
        try:
            owned = store.touch_jobs([fence_of(claim.job) for claim in claims])
        except BackendError as error:
            if vital.failed(error):
                logger.warning("claims made by hand cannot be beaten for, trying again: %s", error)
            return
        if vital.succeeded():
            logger.info("claims made by hand are beaten for again")
        for claim in claims:
            if claim.job.id not in owned:
                claim.lose()

    def _open_claims(self) -> list[Claim]:
        with self._lock:
            return [claim for claim in self._claims if not claim.is_settled and not claim.is_lost]

    def close(self) -> None:
        """Release all claims that have not ended, as far as the database answers. Safe to call twice."""
        with self._lock:
            self._closed = True
            beats, store = self._beats, self._store
        if beats is not None:
            beats.stop()
            beats.join(_SECONDS_TO_JOIN)
        if store is None:
            return
        for claim in self._open_claims():
            try:
                claim.release()
            except JobQueueError as error:
                logger.warning("job %s, claimed by hand, is not released: %s", claim.job.id, error)
        store.close()


class _Beats(StoppableThread):
    """Beats for the claims that were made by hand."""

    def __init__(self, claims: Claims, interval: timedelta) -> None:
        super().__init__("jobqueue-claims")
        self._claims = claims
        self._seconds = interval.total_seconds() / 2

    def run(self) -> None:
        """Beat until stopped."""
        while not self._stopping.wait(self._seconds):
            self._attempt(self._claims.beat)
