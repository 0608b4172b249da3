"""Jobs claimed by hand, for those who run them in a way of their own: no worker thread, no handler."""

import atexit
import logging
import os
import platform
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from time import monotonic
from typing import Final
from uuid import UUID
from weakref import WeakSet

from jobqueue.claim import Claim
from jobqueue.errors import BackendError, ClosedError, InvalidJobError, JobQueueError, UnavailableError
from jobqueue.execution import enter, outcome_of_failure, outcome_of_success, run_error_of
from jobqueue.job_context import JobContext
from jobqueue.limits import check_type_or_pattern
from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Outcome, claim_shown_by
from jobqueue.patience import patience
from jobqueue.registry import default_registry
from jobqueue.service import Service
from jobqueue.store import WorkerStore
from jobqueue.threads import StoppableThread

logger = logging.getLogger(__name__)

_MAX_CALLS: Final = 2  # at the same time, so that a beat always finds a connection
_LONGEST_LOCK_TIMEOUT: Final = timedelta(seconds=2)
_SECONDS_TO_JOIN: Final = 5.0
_SECONDS_TO_RELEASE: Final = 4.0  # before that


class Claims:
    """All claims that were made by hand through one service, and the thread that beats for them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._claims = WeakSet[Claim]()
        self._claiming = 0  # calls that may bring claims
        self._calls = threading.BoundedSemaphore(_MAX_CALLS)
        self._store: WorkerStore | None = None
        self._keeper: _ClaimsKeeper | None = None
        self._closed = False
        self._process = os.getpid()

    # --- making claims

    def claim(self, types: str | Iterable[str], limit: int) -> list[Claim]:
        """Claim up to *limit* due jobs of *types*: names and patterns.

        Raises:
            InvalidJobError: one of *types* is neither.
        """
        names = _checked_types(types)
        settings = self._service.settings
        claimant = Claimant(
            name=f"{platform.node()}:{os.getpid()}:{threading.current_thread().name}",
            lease=settings.dead_for,
            beats=settings.heartbeat_interval is not None,
        )
        with self._opened_store() as store:
            asked_at = monotonic()
            with self._calls:
                jobs = store.claim_jobs(names, limit, claimant)
            claims = [Claim(job, self) for job in jobs]
            if claimant.beats:
                self._keep(claims, asked_at)
            with self._lock:
                self._claims.update(claims)
        return claims

    @contextmanager
    def _opened_store(self) -> Generator[WorkerStore]:
        """Give the store; what is claimed within the block is there before anything is closed."""
        with self._lock:
            if self._closed:
                raise ClosedError("the job queue service was closed: connect again")
            store = self._store
            if store is None:
                store = self._store = self._service.store.for_workers(lock_timeout=self._lock_timeout)
            if self._keeper is None:
                self._keeper = _ClaimsKeeper(self, self._service.settings.heartbeat_interval)
                self._keeper.start()
                atexit.register(self._close_at_exit)
            self._claiming += 1
        try:
            yield store
        finally:
            with self._lock:
                self._claiming -= 1
                self._changed.notify_all()

    @property
    def _lock_timeout(self) -> timedelta:
        # While a save waits for a lock it holds others, whose beats pass them over: it must end well within dead_for.
        return min(_LONGEST_LOCK_TIMEOUT, self._service.settings.dead_for / 8)

    # --- for claims that end

    def save(self, outcome: Outcome) -> bool:
        """Save *outcome*; return whether its claim still stood."""
        # In a forked child this raises ClosedError: the connections are its parent's.
        self._service.store  # noqa: B018
        assert self._store is not None
        with self._calls:
            return bool(self._store.save_outcomes([outcome]))

    def was_saved(self, outcome: Outcome) -> bool:
        """Whether the job looks as *outcome* has made it; a job that is gone cannot tell, and nobody is wronged."""
        return outcome.is_shown_by(self._job_of(outcome.fence.job_id))

    def _job_of(self, job_id: UUID) -> Job | None:
        return next(iter(self._service.store.apart.get_jobs([job_id])), None)

    def outcome_of_success(self, job: Job, result: object) -> Outcome:
        """Return what becomes of *job* after it was run with *result*."""
        return outcome_of_success(job, result, max_result_bytes=self._service.max_payload_bytes)

    def outcome_of_failure(self, job: Job, error: BaseException) -> Outcome:
        """Return what becomes of *job* after its run has failed with *error*."""
        handler, schedule_retry = default_registry.find(job.type), default_registry.schedule_retry_of(job.type)
        context = JobContext(job, service=self._service)

        def outcome() -> Outcome:
            enter(context)
            return outcome_of_failure(job, context, handler, schedule_retry, run_error_of(error))

        return copy_context().run(outcome)

    def note_loss(self, job: Job) -> None:
        """Log and count a claim that was taken away."""
        self._service.vitals.count("lost_claims")
        try:
            present = claim_shown_by(self._job_of(job.id))
        except BackendError as error:
            present = f"what it shows now cannot be read ({type(error).__qualname__})"
        logger.warning(
            "lost the claim %s of %s on job %s, made by hand: its row no longer shows it; %s",
            job.claim_id,
            job.started_at,
            job.id,
            present,
            extra={"job_id": str(job.id), "job_type": job.type},
        )

    # --- for claims that go on

    def beat(self) -> None:
        """Beat for all claims that have not ended."""
        claims = self._open_claims()
        store = self._store
        if not claims or store is None:
            return
        vital = self._service.vitals.vital("claims")
        asked_at = monotonic()
        try:
            standing = _standing(store, claims)
        except BackendError as error:
            if vital.failed(error):
                logger.warning("claims made by hand cannot be beaten for, trying again: %s", error)
            return
        if vital.succeeded():
            logger.warning("claims made by hand are beaten for again")
        self._keep(standing, asked_at)
        for claim in claims:
            if claim not in standing:
                claim.lose()

    def _keep(self, claims: Iterable[Claim], asked_at: float) -> None:
        """Note until when nobody can take *claims* away, which were made, or beaten, no earlier than *asked_at*."""
        for claim in claims:
            claim.keep_until(asked_at + self._service.settings.dead_for.total_seconds())

    def _open_claims(self) -> list[Claim]:
        with self._lock:
            return [claim for claim in self._claims if not claim.has_ended and not claim.was_taken]

    # --- ending

    def close(self) -> None:
        """Have all claims that have not ended released, for at most 5 seconds. Safe to call twice."""
        atexit.unregister(self._close_at_exit)
        with self._lock:
            self._closed = True
            self._changed.wait_for(lambda: not self._claiming, _SECONDS_TO_JOIN)
            keeper, store = self._keeper, self._store
        if keeper is not None:
            keeper.stop()
            if not keeper.join(_SECONDS_TO_JOIN):
                logger.warning("claims made by hand are not released: no answer within %g s", _SECONDS_TO_JOIN)
        if store is not None:
            store.close()

    def _close_at_exit(self) -> None:
        # A forked child ends without its parent's claims, connections and threads.
        if self._process == os.getpid():
            self.close()

    def release_all(self) -> None:
        """Release all claims that have not ended, as far as the database answers."""
        claims = self._open_claims()
        with patience(_SECONDS_TO_RELEASE):
            for place, claim in enumerate(claims):
                try:
                    claim.release()
                except (UnavailableError, ClosedError) as error:
                    logger.warning("%d jobs, claimed by hand, are not released: %s", len(claims) - place, error)
                    return
                except JobQueueError as error:
                    logger.warning("job %s, claimed by hand, is not released: %s", claim.job.id, error)


def _checked_types(types: str | Iterable[str]) -> list[str]:
    if isinstance(types, str):
        types = [types]
    elif not isinstance(types, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise InvalidJobError(f"types must be job types, not {types!r:.40}", field="types")
    return [check_type_or_pattern("types", name) for name in types]


def _standing(store: WorkerStore, claims: Sequence[Claim]) -> set[Claim]:
    """Beat for *claims*; return those that still stand.

    The store tells by the ids of jobs. A job that was taken away may have been claimed here again: of its claims, each
    is asked for apart.
    """
    standing = set[Claim]()
    left = list(claims)
    while left:
        of_job = {claim.job.id: claim for claim in left}
        owned = store.touch_jobs([claim.job.fence for claim in of_job.values()])
        standing.update(claim for job_id, claim in of_job.items() if job_id in owned)
        left = [claim for claim in left if of_job[claim.job.id] is not claim]
    return standing


class _ClaimsKeeper(StoppableThread):
    """Beats for the claims that were made by hand, unless *interval* is None, and releases them in the end.

    In a thread, since a server that hangs must not keep whoever closes the service.
    """

    def __init__(self, claims: Claims, interval: timedelta | None) -> None:
        super().__init__("jobqueue-claims")
        self._claims = claims
        self._seconds = None if interval is None else interval.total_seconds() / 2

    def run(self) -> None:
        """Beat until stopped."""
        while not self._stopping.wait(self._seconds):
            self._attempt(self._claims.beat)
        self._claims.release_all()
