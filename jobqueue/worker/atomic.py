"""Runs of atomic handlers: inside a transaction that commits together with their job's completion, or not at all."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from jobqueue.errors import JobQueueError, LockTimeoutError, RefusedError, UnavailableError
from jobqueue.execution import execute, outcome_of_failure, run_error_of
from jobqueue.handler import Handler
from jobqueue.health import Health
from jobqueue.job_context import JobContext
from jobqueue.middleware import WorkMiddleware
from jobqueue.models import Job
from jobqueue.outcomes import Outcome, OutcomeKind, RunError
from jobqueue.payload import dump_json
from jobqueue.registry import Registry
from jobqueue.store import WorkerStore
from jobqueue.worker.lost_claims import LostClaims
from jobqueue.worker.saving import failure_of

logger = logging.getLogger(__name__)

_COMMITTED: Final = frozenset({OutcomeKind.FINISHED, OutcomeKind.SNOOZED, OutcomeKind.DISCARDED})


@attrs.frozen
class RunEnd:
    """How a run ended."""

    outcome: Outcome | None
    """What is left to be saved; None when all is settled."""
    may_be_saved: Outcome | None = None
    """What was about to be committed when the connection was lost, so that only the row can tell."""
    saved: Outcome | None = None
    """What was committed together with the run's own work."""
    refused: Outcome | None = None
    """What was rolled back with it, since the claim was lost."""

    @property
    def led_to(self) -> Outcome | None:
        """What the run has led to, saved or not; None when its claim was lost."""
        return self.outcome or self.saved


def _name_of(handler: Handler[..., Any]) -> str | None:
    """Return the name of the transaction that the application opens for a handler; None: it is one of our own."""
    return handler.atomic if isinstance(handler.atomic, str) else None


class AtomicRuns:
    """Runs jobs whose handlers are atomic, for all threads of a pool."""

    def __init__(
        self,
        store: WorkerStore,
        registry: Registry,
        *,
        max_rescues: int,
        lost_claims: LostClaims,
        health: Health,
        middleware: Sequence[WorkMiddleware] = (),
    ) -> None:
        self._store = store
        self._middleware = middleware
        self._registry = registry
        self._max_rescues = max_rescues
        self._lost_claims = lost_claims
        self._health = health
        self._vital = health.vital("atomic handlers")

    def run(
        self, job: Job, context: JobContext, handler: Handler[..., Any], stop_beating: Callable[[], None]
    ) -> RunEnd:
        """Run *job* in a transaction, and commit it with what the run led to.

        *stop_beating* is called when that is in the transaction: from then on nobody can take the claim away, and a
        beat would find the job stopped.
        """
        outcome: Outcome | None = None
        is_saved = False
        try:
            with self._store.handler_transaction(_name_of(handler)) as transaction:
                self._note_connection()
                context.work_in(transaction)
                schedule_retry = self._registry.schedule_retry_of(job.type)
                outcome = execute(job, context, handler, schedule_retry, self._middleware)
                if outcome.kind not in _COMMITTED:
                    return RunEnd(self._unless_spent(job, outcome))
                is_saved = transaction.save(outcome)
                stop_beating()
        except (UnavailableError, LockTimeoutError) as error:
            if outcome is None:
                return self._not_begun(job, error)
            rescued = self._unless_spent(job, Outcome.rescued(job))
            return RunEnd(rescued, may_be_saved=outcome if is_saved else None)
        except JobQueueError as error:
            return RunEnd(self._after_refusal(job, context, handler, outcome, error, is_saved=is_saved))
        finally:
            context.work_in(None)
        if not is_saved:
            self._refuse(outcome)
        self._lost_claims.forget(outcome.fence)
        return RunEnd(None, saved=outcome) if is_saved else RunEnd(None, refused=outcome)

    def _note_connection(self) -> None:
        if self._vital.succeeded():
            logger.warning("atomic handlers have connections again")

    def _not_begun(self, job: Job, error: JobQueueError) -> RunEnd:
        """Give a job back that found no connection to run on: that costs it nothing."""
        if self._vital.failed(error):
            logger.warning("atomic handlers get no connection, their jobs wait: %s", error)
        return RunEnd(Outcome.released(job))

    def _unless_spent(self, job: Job, outcome: Outcome) -> Outcome:
        """Return *outcome*, unless it is one rescue too many: then the job may be what cuts the connection."""
        if outcome.kind is not OutcomeKind.RESCUED:
            return outcome
        if job.rescue_count < self._max_rescues:
            logger.warning(
                "the transaction of an atomic handler was cut off: job %s (%s) is taken up again, rescue %d",
                job.id,
                job.type,
                job.rescue_count + 1,
                extra={"job_id": str(job.id), "job_type": job.type},
            )
            return outcome
        message = (
            f"the handler lost its connection, and the job had been taken up again {job.rescue_count} times before"
        )
        logger.error("job %s (%s) failed: %s", job.id, job.type, message, extra={"job_id": str(job.id)})
        evidence = {
            "type": "TooManyRescues",
            "rescue_count": job.rescue_count,
            "claimed_by": job.claimed_by,
            "started_at": None if job.started_at is None else job.started_at.isoformat(),
        }
        return Outcome.failed(job, RunError(message=message, type="TooManyRescues", data_json=dump_json(evidence)))

    def _after_refusal(
        self,
        job: Job,
        context: JobContext,
        handler: Handler[..., Any],
        outcome: Outcome | None,
        error: JobQueueError,
        *,
        is_saved: bool,
    ) -> Outcome:
        """Return what becomes of a job whose transaction the database would not complete: all of it is rolled back."""
        self._health.tell_of(error)
        if isinstance(error, RefusedError) and outcome is not None and not is_saved:
            return failure_of(outcome, error)
        # A constraint that is checked at the end is best told in the driver's own words.
        cause = error.__cause__ if is_saved and error.__cause__ is not None else error
        schedule_retry = self._registry.schedule_retry_of(job.type)
        return outcome_of_failure(job, context, handler, schedule_retry, run_error_of(cause))

    def _refuse(self, outcome: Outcome) -> None:
        self._health.count("refused_outcomes")
        self._lost_claims.note(outcome.fence, f"its outcome ({outcome.kind}) was refused, and its work rolled back")
