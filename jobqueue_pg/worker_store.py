"""Jobs as rows in PostgreSQL, as worker pools use them: trips, beats and the reaper."""

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from jobqueue.errors import LockTimeoutError, RegistrationError
from jobqueue.models import Job, new_id
from jobqueue.outcomes import Claimant, Fence, Outcome, Rescue, Trip
from jobqueue.patience import patience
from jobqueue.store import SilenceCounts, always_counts
from jobqueue_pg import rows
from jobqueue_pg.database import Database
from jobqueue_pg.errors import translate_errors
from jobqueue_pg.handler_transaction import PostgresHandlerTransaction, in_transaction
from jobqueue_pg.queries.applications import GET_JOBS
from jobqueue_pg.queries.claiming import CLAIM_JOBS
from jobqueue_pg.queries.maintaining import DELETE_SUCCEEDED_BUNDLES, PREPARE_TO_REAP, REAP_JOBS, TOUCH_JOBS
from jobqueue_pg.queries.saving import SAVE_OUTCOMES
from jobqueue_pg.queries.trips import MAKE_TRIP
from jobqueue_pg.schema import channel_prefix

_WAIT_FOR_CONNECTION: Final = 5.0
_LONGEST_BEAT: Final = timedelta(seconds=6)
_JOB_COLUMNS: Final = slice(2, None)
_BEGAN_AT: Final = 11


class PostgresWorkerStore:
    """The WorkerStore on PostgreSQL, over three connections: two for trips and maintenance, one for beats.

    Transactions of atomic handlers have connections of their own, made when they are needed.

    That the former are two at most is the dispatcher's business; that beats come one at a time is settled here, so that
    many of them at once can never keep a trip waiting.
    """

    def __init__(
        self, database: Database, handlers: Database | None = None, *, beat_within: timedelta = _LONGEST_BEAT
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._beat_within = beat_within.total_seconds()
        self._beating = threading.Lock()
        self._job_stopped = f"{channel_prefix(database.schema)}job_stopped"

    def make_trip(self, outcomes: Sequence[Outcome], types: Sequence[str], limit: int, claimant: Claimant) -> Trip:
        """Save *outcomes* and claim up to *limit* jobs, in one statement and one commit."""
        if not outcomes:
            return self._claim(types, limit, claimant)
        if not types or limit < 1:
            return Trip(saved=self.save_outcomes(outcomes))
        claim_id = new_id()
        parameters = {**_saving(outcomes, self._job_stopped), **_claiming(types, limit, claim_id, claimant)}
        return _trip(self._database.fetch(MAKE_TRIP, parameters), outcomes, claim_id, claimant)

    def _claim(self, types: Sequence[str], limit: int, claimant: Claimant) -> Trip:
        if not types or limit < 1:
            return Trip()
        claim_id = new_id()
        found = self._database.fetch(CLAIM_JOBS, _claiming(types, limit, claim_id, claimant))
        return _trip(found, (), claim_id, claimant)

    def claim_jobs(self, types: Sequence[str], limit: int, claimant: Claimant) -> tuple[Job, ...]:
        """Claim up to *limit* jobs."""
        return self._claim(types, limit, claimant).claimed

    def save_outcomes(self, outcomes: Sequence[Outcome]) -> frozenset[UUID]:
        """Save *outcomes*; return the ids of the jobs for which it was done."""
        if not outcomes:
            return frozenset()
        saved = self._database.fetch(SAVE_OUTCOMES, _saving(outcomes, self._job_stopped))
        return frozenset(row[0] for row in saved)

    @contextmanager
    def handler_transaction(self) -> Generator[PostgresHandlerTransaction]:
        """Open a transaction within the block: committed at its end, if an outcome was saved, and else rolled back."""
        if self._handlers is None:
            raise RegistrationError("this worker store was made without connections for atomic handlers")
        with translate_errors(), self._handlers.pool.connection() as connection:
            try:
                yield from in_transaction(connection, self._handlers, self._job_stopped)
            finally:
                self._handlers.pool.clean(connection)

    def touch_jobs(self, fences: Sequence[Fence]) -> frozenset[UUID]:
        """Beat for claims; return the ids of the jobs that are still theirs.

        A row that somebody has locked is passed over: it cannot be reaped either, and the next beat is soon enough.
        """
        if not fences:
            return frozenset()
        with self._connection_for_beats():
            owned = self._database.fetch(TOUCH_JOBS, {"fences": rows.fences_json(fences)})
        return frozenset(row[0] for row in owned)

    def get_jobs(self, job_ids: Iterable[UUID]) -> list[Job]:
        """Read those of the jobs that are there."""
        with self._connection_for_beats():
            found = self._database.fetch(GET_JOBS, {"ids": list(job_ids)})
        return [rows.job_of_row(row) for row in found]

    def reap_jobs(
        self, dead_for: timedelta, max_rescues: int, *, if_counts: SilenceCounts = always_counts
    ) -> list[Rescue]:
        """Free the jobs of claims that have been silent for *dead_for*, or for their lease when that is longer."""

        def reap(connection: psycopg.Connection[Any]) -> list[rows.Row]:
            # What is now was settled when the transaction began: claims are judged by that, even if the server, or this
            # process, is frozen before the next statement.
            ((now,),) = self._database.execute(connection, PREPARE_TO_REAP, {}).fetchall()
            if not if_counts(now):
                return []
            limits = {"dead_for": dead_for, "max_rescues": max_rescues}
            return self._database.execute(connection, REAP_JOBS, limits).fetchall()

        return [rows.rescue_of_row(row) for row in self._database.transact(reap)]

    def delete_succeeded_bundles(self, kept_for: timedelta) -> int:
        """Delete bundles that asked for it, completed without an error *kept_for* ago and have nothing left to do."""
        return self._database.change(DELETE_SUCCEEDED_BUNDLES, {"kept_for": kept_for})

    @contextmanager
    def _connection_for_beats(self) -> Generator[None]:
        if not self._beating.acquire(timeout=_WAIT_FOR_CONNECTION):
            raise LockTimeoutError(f"the connection for beats was busy for {_WAIT_FOR_CONNECTION:g} s")
        try:
            # A session that hangs must not silence the claims that others could beat for.
            with patience(self._beat_within, at_least=0):
                yield
        finally:
            self._beating.release()

    def close(self) -> None:
        """Give up the connections."""
        if self._handlers is not None:
            self._handlers.close()
        self._database.close()


def _saving(outcomes: Sequence[Outcome], channel: str) -> dict[str, object]:
    return {"outcomes": rows.outcomes_json(outcomes), "job_stopped": channel}


def _claiming(types: Sequence[str], limit: int, claim_id: UUID, claimant: Claimant) -> dict[str, object]:
    return {
        "types": [name for name in types if not name.endswith("*")],
        "prefixes": [name.removesuffix("*") for name in types if name.endswith("*")],
        "limit": limit,
        "claim_id": claim_id,
        "lease": claimant.lease,
        "claimed_by": claimant.name,
        "beats": claimant.beats,
    }


def _trip(fetched: Sequence[rows.Row], outcomes: Sequence[Outcome], claim_id: UUID, claimant: Claimant) -> Trip:
    """Sort the rows of a trip; RETURNING keeps no order, so jobs are put into the order in which they were due."""
    *found, last = fetched
    began_at = last[_BEGAN_AT]
    claimed: list[Job] = []
    refused: list[UUID] = []
    for row in found:
        if row[0] == "claimed":
            claimed.append(rows.job_of_claimed_row(row[_JOB_COLUMNS], began_at, claim_id, claimant))
        else:
            refused.append(row[2])
    claimed.sort(key=_order)
    saved = frozenset([outcome.fence.job_id for outcome in outcomes])
    return Trip(
        saved=saved.difference(refused) if refused else saved,
        claimed=tuple(claimed),
        next_due_in=None if last[1] is None else timedelta(seconds=last[1]),
    )


def _order(job: Job) -> tuple[object, ...]:
    # The number of a UUID, which is compared in no time.
    return (-job.priority, job.start_at or job.created_at, job.id.int)
