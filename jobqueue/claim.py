"""One job that was claimed by hand, and how its claim ends."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from jobqueue.errors import BackendError, JobQueueError, LostClaimError, UnavailableError
from jobqueue.health import Health
from jobqueue.models import Job
from jobqueue.outcomes import Outcome
from jobqueue.payload import dump_json
from jobqueue.store import WorkerStore

logger = logging.getLogger(__name__)


class Claim:
    """One job, claimed until it is finished, failed or released; as long as this object lives, it is beaten for.

    As a context manager it does one of these at the end of the block, unless that was done within: it finishes the job
    without a result, or fails it with the error that ended the block, or releases it when that was no ``Exception``
    (as KeyboardInterrupt).
    """

    def __init__(
        self, job: Job, *, store: WorkerStore, health: Health, failure_of: Callable[[Job, BaseException], Outcome]
    ) -> None:
        self.job: Final = job
        self._store = store
        self._health = health
        self._failure_of = failure_of
        self._settling = threading.Lock()
        self._is_settled = False
        self._was_sent = False
        self._lost = False

    @property
    def is_lost(self) -> bool:
        """Whether a beat has found that the claim was taken away."""
        return self._lost

    @property
    def is_settled(self) -> bool:
        """Whether the job was finished, failed or released."""
        return self._is_settled

    def finish(self, result: object = None) -> None:
        """Save that the job has succeeded, with *result*.

        Raises:
            PayloadError: *result* cannot be made JSON; the claim goes on.
            LostClaimError: the claim was taken away; nothing was saved.
            JobQueueError: it was finished, failed or released before.
            BackendError: the database refused or failed; the claim goes on.
        """
        self._settle(Outcome.finished(self.job, None if result is None else dump_json(result)))

    def fail(self, error: BaseException | str) -> None:
        """Save that the run has failed: the job is retried, or stops, as if a worker had run it.

        The policy is that of the handler that is registered for its type in this process, if any. Raises as ``finish``.
        """
        self._settle(self._failure_of(self.job, error if isinstance(error, BaseException) else Exception(error)))

    def release(self) -> None:
        """Give the job back as if it had never been claimed. Raises as ``finish``."""
        self._settle(Outcome.released(self.job))

    def _settle(self, outcome: Outcome) -> None:
        with self._settling:
            if self._is_settled:
                raise JobQueueError(f"the claim on job {self.job.id} has ended already, and can end only once")
            try:
                saved = self._store.save_outcomes([outcome])
            except UnavailableError:
                self._was_sent = True
                raise
            self._is_settled = True
        # What was sent before may have been saved without our knowing.
        if not saved and not self._was_sent:
            self._lost = True
            self._health.count("lost_claims")
            raise LostClaimError(f"job {self.job.id} ({self.job.type}) was taken away: its outcome is not saved")

    def lose(self) -> None:
        """Note that the row does not show the claim any more, unless that is because it has ended."""
        with self._settling:
            self._lost = not self._is_settled

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_settled:
            return
        if error is None:
            self.finish()
            return
        try:
            if isinstance(error, Exception):
                self.fail(error)
            else:
                self.release()
        except (BackendError, LostClaimError) as problem:
            logger.warning("what ended the claim on job %s is not saved: %s", self.job.id, problem)

    def __repr__(self) -> str:
        return f"<Claim of job {self.job.id} ({self.job.type}){' lost' if self._lost else ''}>"
