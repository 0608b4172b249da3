"""What to do when a trip is refused: take it apart, so that one bad outcome does not hold up the others."""

import logging
from collections.abc import Sequence
from uuid import UUID

import attrs

from jobqueue.errors import LockTimeoutError, RefusedError, UnavailableError
from jobqueue.health import Health
from jobqueue.outcomes import Outcome, OutcomeKind, RunError
from jobqueue.store import WorkerStore

logger = logging.getLogger(__name__)


@attrs.define
class Saving:
    """How far a set of outcomes that could not be saved together has got."""

    saved: set[UUID] = attrs.field(factory=set[UUID])
    tried: list[Outcome] = attrs.field(factory=list[Outcome])
    """Those that the database has dealt with: saved, or found that their claim was lost, or given up."""
    waiting: list[Outcome] = attrs.field(factory=list[Outcome])
    """Those that need a row which somebody has locked."""
    postponed: list[Outcome] = attrs.field(factory=list[Outcome])
    """Those that could not be sent, because the database stopped to answer."""


def save_apart(store: WorkerStore, outcomes: Sequence[Outcome], health: Health) -> Saving:
    """Save *outcomes* by halves and at last one by one, and a refused one as a plain failure."""
    saving = Saving()
    try:
        _save(store, outcomes, health, saving)
    except UnavailableError:
        dealt_with = {outcome.fence for outcome in (*saving.tried, *saving.waiting)}
        saving.postponed = [outcome for outcome in outcomes if outcome.fence not in dealt_with]
    return saving


def _save(store: WorkerStore, outcomes: Sequence[Outcome], health: Health, saving: Saving) -> None:
    try:
        saving.saved |= store.save_outcomes(outcomes)
        saving.tried += outcomes
    except LockTimeoutError:
        # Whoever holds a row of one bundle must not hold up the outcomes of others.
        loose = [outcome for outcome in outcomes if outcome.bundle_id is None]
        if 0 < len(loose) < len(outcomes):
            saving.waiting += [outcome for outcome in outcomes if outcome.bundle_id is not None]
            _save(store, loose, health, saving)
        else:
            saving.waiting += outcomes
    except RefusedError as error:
        if len(outcomes) == 1:
            _save_as_failure(store, outcomes[0], error, health, saving)
        else:
            middle = len(outcomes) // 2
            _save(store, outcomes[:middle], health, saving)
            _save(store, outcomes[middle:], health, saving)


def _save_as_failure(
    store: WorkerStore, outcome: Outcome, refusal: RefusedError, health: Health, saving: Saving
) -> None:
    """Save that the job has failed, in words that any database accepts; if even that is refused, say so and let go.

    The job's claim then falls silent, so that it is rescued as often as allowed, and failed.
    """
    health.count("refused_outcomes")
    logger.error(
        "the outcome (%s) of job %s was refused: %s",
        outcome.kind,
        outcome.fence.job_id,
        refusal,
        extra={"job_id": str(outcome.fence.job_id)},
    )
    message = f"the result could not be stored: {refusal}".encode("ascii", "replace").decode().replace("\0", "?")
    failure = attrs.evolve(
        outcome,
        kind=OutcomeKind.FAILED,
        result_json=None,
        delay=None,
        start_at=None,
        error=RunError(message=message[:1000], type="RefusedError"),
    )
    try:
        saving.saved |= store.save_outcomes([failure])
    except LockTimeoutError:
        saving.waiting.append(outcome)
        return
    except RefusedError:
        logger.exception("job %s cannot even be failed; it is left to be rescued", outcome.fence.job_id)
    saving.tried.append(outcome)
