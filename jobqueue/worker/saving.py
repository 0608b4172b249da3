"""What to do when a trip is refused: take it apart, so that one bad outcome does not hold up the others."""

import logging
from collections.abc import Sequence
from uuid import UUID

import attrs

from jobqueue.errors import BackendError, LockTimeoutError, RefusedError
from jobqueue.health import Health
from jobqueue.outcomes import Outcome, OutcomeKind, RunError
from jobqueue.store import WorkerStore

logger = logging.getLogger(__name__)


@attrs.define
class Saving:
    """Saves outcomes that could not be saved together: by halves, at last one by one, a refused one as a failure."""

    store: WorkerStore
    health: Health
    saved: set[UUID] = attrs.field(factory=set[UUID])
    """Ids of the jobs whose outcome, or failure, was saved."""
    heard_of: list[Outcome] = attrs.field(factory=list[Outcome])
    """Outcomes that were saved, or whose claim turned out to be lost."""
    locked: list[Outcome] = attrs.field(factory=list[Outcome])
    """Outcomes that need a row which somebody has locked."""
    given_up: list[Outcome] = attrs.field(factory=list[Outcome])
    """Outcomes that were refused, and refused even as failures."""
    unsent: list[Outcome] = attrs.field(factory=list[Outcome])
    """Outcomes that are left because the database stopped to answer."""

    def save(self, outcomes: Sequence[Outcome]) -> None:
        """Save *outcomes* as far as it goes."""
        try:
            self._save(outcomes)
        except BackendError:
            dealt_with = {outcome.fence for outcome in (*self.heard_of, *self.locked, *self.given_up)}
            self.unsent = [outcome for outcome in outcomes if outcome.fence not in dealt_with]

    def _save(self, outcomes: Sequence[Outcome]) -> None:
        try:
            self.saved |= self.store.save_outcomes(outcomes)
            self.heard_of += outcomes
        except LockTimeoutError:
            if len({outcome.bundle_id or outcome.fence for outcome in outcomes}) == 1:
                self.locked += outcomes
            else:
                self._save_by_halves(outcomes)
        except RefusedError as refusal:
            if len(outcomes) == 1:
                self._save_as_failure(outcomes[0], refusal)
            else:
                self._save_by_halves(outcomes)

    def _save_by_halves(self, outcomes: Sequence[Outcome]) -> None:
        middle = len(outcomes) // 2
        self._save(outcomes[:middle])
        self._save(outcomes[middle:])

    def _save_as_failure(self, outcome: Outcome, refusal: RefusedError) -> None:
        """Save that the job has failed, in words that any database accepts; if even that is refused, let go of it.

        The job's claim then falls silent, so that it is rescued as often as allowed, and failed by the reaper.
        """
        self.health.count("refused_outcomes")
        self.health.tell_of(refusal)
        logger.error(
            "the outcome (%s) of job %s was refused, and is saved as a failure; its error_msg says why",
            outcome.kind,
            outcome.fence.job_id,
            extra={"job_id": str(outcome.fence.job_id)},
        )
        try:
            self.saved |= self.store.save_outcomes([failure_of(outcome, refusal)])
            self.heard_of.append(outcome)
        except LockTimeoutError:
            self.locked.append(outcome)
        except RefusedError:
            self.given_up.append(outcome)
            logger.exception("job %s cannot even be failed; it is left to be rescued", outcome.fence.job_id)


def failure_of(outcome: Outcome, refusal: RefusedError) -> Outcome:
    """Return, for an outcome that the database refused, the failure that says so, in words that any accepts."""
    reason = str(refusal).encode("ascii", "replace").decode().replace("\0", "?")
    error = RunError(message=f"the result could not be stored: {reason}"[:1000], type="RefusedError")
    return attrs.evolve(outcome, kind=OutcomeKind.FAILED, result_json=None, delay=None, start_at=None, error=error)
