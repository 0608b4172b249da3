"""One job that was claimed by hand, and how its claim ends."""

import logging
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from types import TracebackType
from typing import Final, Protocol, Self

from jobqueue.errors import JobQueueError, LostClaimError, UnavailableError
from jobqueue.models import Job
from jobqueue.outcomes import Outcome

logger = logging.getLogger(__name__)


class ClaimOwner(Protocol):
    """Who has made claims, knows how they end, and saves that."""

    def save(self, outcome: Outcome) -> bool:
        """Save *outcome*; return whether its claim still stood. Raises BackendError."""
        ...

    def was_saved(self, outcome: Outcome) -> bool:
        """Whether *outcome*, whose answer got lost, seems to have been saved. Raises BackendError."""
        ...

    def outcome_of_success(self, job: Job, result: object) -> Outcome:
        """Return what becomes of *job* after it was run with *result*. Raises PayloadError."""
        ...

    def outcome_of_failure(self, job: Job, error: BaseException) -> Outcome:
        """Return what becomes of *job* after its run has failed with *error*."""
        ...

    def note_loss(self, job: Job) -> None:
        """Note that the claim on *job* was taken away."""
        ...


class Claim:
    """One job, claimed until it is finished, failed or released; as long as this object lives, it is beaten for.

    As a context manager it does one of these at the end of the block, unless that was done within: it finishes the job
    without a result, or fails it with the error that ended the block, or releases it when that was no ``Exception``
    (as KeyboardInterrupt). What ``finish`` raises then, the block raises.
    """

    def __init__(self, job: Job, owner: ClaimOwner) -> None:
        self.job: Final = job
        self._owner = owner
        self._kept_until = inf
        self._ending = threading.Lock()
        self._has_ended = False
        self._sent: Outcome | None = None  # what may have been saved without our knowing
        self._lost = False

    @property
    def is_lost(self) -> bool:
        """Whether the claim was taken away, or may have been, since no beat has got through for ``dead_for``.

        In the latter case it may stand again with the next beat. Only the end of the claim, which is saved or refused,
        makes certain.
        """
        return self._lost or monotonic() >= self._kept_until

    @property
    def was_taken(self) -> bool:
        """Whether it was found, by a beat or at the end, that the claim had been taken away."""
        return self._lost

    @property
    def has_ended(self) -> bool:
        """Whether the job was finished, failed or released, or found to be lost when that was tried."""
        return self._has_ended

    def finish(self, result: object = None) -> None:
        """Save that the run has ended with *result*, which is what a handler may return: Snooze and Discard, too.

        Raises:
            PayloadError: *result* cannot be made JSON; the claim goes on.
            LostClaimError: the claim was taken away; nothing was saved.
            JobQueueError: it was finished, failed or released before.
            BackendError: the database refused or failed; the claim goes on, and the same call may succeed later.
        """
        self._end(lambda: self._owner.outcome_of_success(self.job, result))

    def fail(self, error: BaseException | str) -> None:
        """Save that the run has failed: the job is retried, or stops, as if a worker had run it.

        The policy is that of the handler that is registered for its type in this process, if any. Raises as ``finish``.
        """
        problem = error if isinstance(error, BaseException) else Exception(error)
        self._end(lambda: self._owner.outcome_of_failure(self.job, problem))

    def release(self) -> None:
        """Give the job back as if it had never been claimed. Raises as ``finish``."""
        self._end(lambda: Outcome.released(self.job))

    def _end(self, outcome: Callable[[], Outcome]) -> None:
        with self._ending:
            if self._has_ended:
                raise JobQueueError(f"the claim on job {self.job.id} has ended already, and can end only once")
            is_saved = self._save(outcome())
            self._has_ended = True
            if not is_saved:
                self._note_loss()
                raise LostClaimError(f"job {self.job.id} ({self.job.type}) was taken away: its outcome is not saved")

    def _save(self, outcome: Outcome) -> bool:
        try:
            if self._owner.save(outcome):
                return True
        except UnavailableError:
            self._sent = outcome
            raise
        return self._sent is not None and self._owner.was_saved(self._sent)

    def keep_until(self, moment: float) -> None:
        """Note until when (by the monotonic clock) nobody can have taken the claim away."""
        self._kept_until = moment

    def lose(self) -> None:
        """Note that the row does not show the claim any more, unless that is because it has ended."""
        # Whoever is about to end it at this moment finds out, and a beat must not wait for that.
        if self._ending.acquire(blocking=False):
            try:
                if not self._has_ended:
                    self._note_loss()
            finally:
                self._ending.release()

    def _note_loss(self) -> None:
        if not self._lost:
            self._lost = True
            self._owner.note_loss(self.job)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_ended:
            return
        if error is None:
            self.finish()
            return
        try:
            if isinstance(error, Exception):
                self.fail(error)
            else:
                self.release()
        except JobQueueError as problem:
            logger.warning("what ended the claim on job %s is not saved: %s", self.job.id, problem)

    def __repr__(self) -> str:
        return f"<Claim of job {self.job.id} ({self.job.type}){' lost' if self.is_lost else ''}>"
