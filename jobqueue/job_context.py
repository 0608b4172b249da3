"""What a running handler is given: its job, how long it may take, and whether it should still go on."""

import logging
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic, time
from typing import Any, Final

import attrs

from jobqueue.bundle import JobBundle
from jobqueue.errors import (
    JobInterruptedError,
    JobQueueError,
    JobTimeoutError,
    LostClaimError,
    UnavailableError,
)
from jobqueue.models import Job
from jobqueue.payload import dump_json
from jobqueue.service import Service
from jobqueue.store import HandlerTransaction

logger = logging.getLogger(__name__)


@attrs.frozen
class _Lent:
    """A connection whose transaction is somebody else's business."""

    connection: Any
    is_cut_off: bool = False


class JobContext:
    """One run of a job, seen from its handler. The timeout counts from when this was made: right before the run.

    A run cannot be stopped from outside: long handlers call ``check`` now and then, and those that want to end in
    their own way look at ``is_cancelled``.
    """

    # Made for every job and written by other threads. Single values, each written by one thread, need no lock.
    __slots__ = (
        "_began_at",
        "_bundle",
        "_expires",
        "_interrupted",
        "_kept_until",
        "_lost",
        "_timeout",
        "_transaction",
        "job",
        "service",
    )

    def __init__(
        self,
        job: Job,
        *,
        timeout: timedelta | None = None,
        service: Service | None = None,
        bundle: JobBundle | None = None,
        connection: Any = None,
    ) -> None:
        self.job: Final = job
        self.service: Final = service
        self._bundle = bundle
        self._transaction: HandlerTransaction | _Lent | None = None if connection is None else _Lent(connection)
        self._timeout = timeout
        self._began_at = time()
        self._expires = None if timeout is None else monotonic() + timeout.total_seconds()
        self._kept_until = inf
        self._lost = False
        self._interrupted = False

    @property
    def deadline(self) -> datetime | None:
        """When the timeout is reached, by this machine's clock; None without a timeout."""
        if self._timeout is None:
            return None
        try:
            return datetime.fromtimestamp(self._began_at, UTC) + self._timeout
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)

    @property
    def is_lost(self) -> bool:
        """Whether the claim was taken away, or may have been since no beat gets through.

        What the run still does to its job will then not be saved.
        """
        return self._lost or monotonic() >= self._kept_until

    @property
    def is_cancelled(self) -> bool:
        """Whether the run is not wanted any more: the worker pool is stopping, or the claim is lost."""
        return self._interrupted or self.is_lost

    def check(self) -> None:
        """Return if the run should go on.

        Raises:
            LostClaimError: the claim was taken away; somebody else may be running the job.
            JobInterruptedError: the worker pool is stopping. Let through, it releases the job; no retry is used up.
            JobTimeoutError: the timeout is reached.
        """
        if self.is_lost:
            raise LostClaimError(f"{self._name} was taken away from this worker: what it still does will not be saved")
        if self._interrupted:
            raise JobInterruptedError(f"{self._name} was interrupted, because its worker pool is stopping")
        if self._expires is not None and monotonic() >= self._expires:
            raise JobTimeoutError(f"{self._name} has reached its timeout of {self._timeout}")

    @property
    def connection(self) -> Any:
        """The connection of an atomic handler: the driver's own, with a transaction open on it.

        Of a handler with ``atomic="name"`` it is what the application's own block of that name gives: its session, say.

        What is done on it, jobs that are added by ``connection=`` included, is committed with the job's completion when
        the handler returns, or else rolled back. The handler neither commits nor rolls back, keeps the isolation level
        (READ COMMITTED), and catches a database error only around a savepoint (``with ctx.connection.transaction()``).

        Raises:
            JobQueueError: the handler is not registered as ``atomic``, or is not run by worker threads.
        """
        if self._transaction is None:
            raise JobQueueError(
                f"{self._name} has no connection of its own: only handlers registered with atomic=True, or a name, "
                "have, while worker threads run them; do_job(job, connection=...) lends them one"
            )
        return self._transaction.connection

    @property
    def is_cut_off(self) -> bool:
        """Whether the connection of an atomic handler is lost, and all that was done on it."""
        return self._transaction is not None and self._transaction.is_cut_off

    def bundle(self) -> JobBundle | None:
        """Read the bundle whose completion added this job, or else the one that the job is a member of.

        Raises:
            JobBundleNotFoundError: it has been deleted.
            JobQueueError: the job is in a bundle, but runs without a service to read it through.
        """
        bundle_id = self.job.completes_bundle_id or self.job.bundle_id
        if bundle_id is None or self._bundle is not None:
            return self._bundle
        if self.service is None:
            raise JobQueueError(f"{self._name} runs without a service, as under do_job(): its bundle cannot be read")
        return self.service.get_job_bundle(bundle_id)

    def set_progress(self, fraction: float, message: str = "") -> None:
        """Show in ``job.progress``, as ``{"fraction": ..., "message": ...}``, how far the run has come (0 to 1).

        That is one small statement: call it when there is news for people, not in a tight loop. A database that does
        not answer is passed over. A job that was not claimed, as under do_job(), shows nothing.

        Raises:
            ValueError: *fraction* is not from 0 to 1.
            LostClaimError: the claim was taken away.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is 0 to 1, not {fraction!r}")
        progress = dump_json({"fraction": float(fraction), "message": message})
        if self.service is None or self.job.claim_id is None:
            return
        try:
            stands = self.service.store.save_progress(self.job.fence, progress)
        except UnavailableError as error:
            logger.debug("the progress of %s is not shown: %s", self._name, error)
            return
        if not stands:
            self.lose()
            self.check()

    def keep_until(self, moment: float) -> None:
        """Note, from any thread, until when (by the monotonic clock) nobody can have taken the claim away."""
        self._kept_until = moment

    def work_in(self, transaction: HandlerTransaction | None) -> None:
        """Give the run of an atomic handler its transaction; None takes it away."""
        self._transaction = transaction

    def lose(self) -> None:
        """Note, from any thread, that the claim was taken away."""
        self._lost = True

    def interrupt(self) -> None:
        """Note, from any thread, that the worker pool is stopping and will not wait any longer."""
        self._interrupted = True

    @property
    def _name(self) -> str:
        return f"job {self.job.id} ({self.job.type})"


current_job_context: Final[ContextVar[JobContext | None]] = ContextVar("jobqueue_job_context", default=None)
"""The run that the code which reads this is part of."""


def current_job() -> Job | None:
    """Return the job whose handler is calling, or None outside of handlers."""
    context = current_job_context.get()
    return None if context is None else context.job
