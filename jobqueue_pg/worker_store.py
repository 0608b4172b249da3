"""Jobs as rows in PostgreSQL, as worker pools use them: trips, beats and the reaper."""

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, LiteralString
from uuid import UUID

import attrs

from jobqueue.errors import BackendError, LockTimeoutError, RegistrationError
from jobqueue.models import Fence, Job, new_id
from jobqueue.outcomes import Claimant, Outcome, Rescue, Trip
from jobqueue.patience import patience
from jobqueue.pauses import LONGEST_BACK_OFF, SHORTEST_BACK_OFF
from jobqueue.retention import KEEP_ALL, Retention
from jobqueue.store import Round, SilenceCounts, always_counts
from jobqueue_pg import rows
from jobqueue_pg.cleaning import PostgresCleaning
from jobqueue_pg.database import Database
from jobqueue_pg.errors import translate_errors
from jobqueue_pg.handler_transaction import PostgresHandlerTransaction, in_transaction
from jobqueue_pg.named_transactions import NO_TRANSACTIONS, NamedTransactions, Transactions
from jobqueue_pg.pauses import NO_PAUSES, KnownPauses
from jobqueue_pg.queries.applications import GET_JOBS
from jobqueue_pg.queries.claiming import CLAIM_JOBS, CLAIM_JOBS_OF_TYPES, FIND_NEXT_DUE
from jobqueue_pg.queries.maintaining import DELETE_SUCCEEDED_BUNDLES, TOUCH_JOBS
from jobqueue_pg.queries.pauses import BACK_OFF, END_BACK_OFF
from jobqueue_pg.reaper import Reaper
from jobqueue_pg.saving import Saving
from jobqueue_pg.schedules import PostgresSchedules
from jobqueue_pg.schema import channel_prefix
from jobqueue_pg.watermarks import Look, Seen, Watermarks

_WAIT_FOR_CONNECTION: Final = 5.0
_LONGEST_BEAT: Final = timedelta(seconds=6)
_PAUSE_AFTER_ERROR: Final = timedelta(seconds=1)
# Places in the rows of a trip: see ASIDE in queries/claiming.py.
_JOB_COLUMNS: Final = slice(2, None)
_BEGAN_AT: Final = 11
_SEEN: Final = 14
_PAUSED: Final = 17
_WITHOUT_OUTCOMES: Final = frozenset({CLAIM_JOBS, CLAIM_JOBS_OF_TYPES})


class PostgresWorkerStore:
    """The WorkerStore on PostgreSQL, over three connections: two for trips and maintenance, one for beats.

    Transactions of atomic handlers have connections of their own, made when they are needed.

    That the former are two at most is the dispatcher's business; that beats come one at a time is settled here, so that
    many of them at once can never keep a trip waiting.
    """

    def __init__(
        self,
        database: Database,
        handlers: Database | None = None,
        *,
        beat_within: timedelta = _LONGEST_BEAT,
        retention: Retention = KEEP_ALL,
        transactions: Transactions = NO_TRANSACTIONS,
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._beat_within = beat_within.total_seconds()
        self._beating = threading.Lock()
        self.schedules: Final = PostgresSchedules(database)
        self._reaper = Reaper(database)
        self._watermarks = Watermarks()
        self._saving = Saving(retention, f"{channel_prefix(database.schema)}job_stopped")
        self._transactions = NamedTransactions(transactions, database, self._saving)
        self.retention = retention
        self.cleaning = PostgresCleaning(database)

    def make_trip(
        self,
        outcomes: Sequence[Outcome],
        types: Sequence[str],
        limit: int,
        claimant: Claimant,
        *,
        without: Sequence[str] = (),
    ) -> Trip:
        """Save *outcomes* and claim up to *limit* jobs, in one statement and one commit."""
        if not types or limit < 1:
            return Trip(saved=self.save_outcomes(outcomes))
        look = self._watermarks.next_look(types, limit, without)
        trip = self._make(look, outcomes, limit, claimant)
        if look.is_full or len(trip.claimed) == limit:
            return trip
        return self._look_again_fully(trip, look, limit, claimant)

    def _look_again_fully(self, trip: Trip, narrow: Look, limit: int, claimant: Claimant) -> Trip:
        """Look fully after a narrow look that has brought too few: only that can tell that there is nothing more."""
        look = self._watermarks.full_look(*narrow.request)
        try:
            # Nobody beats for what the first has claimed, as long as this one is waited for.
            with patience(self._beat_within, at_least=0):
                more = self._make(look, (), limit - len(trip.claimed), claimant)
        except BackendError:
            # What was done stands; whoever looks again will hear what is wrong.
            return attrs.evolve(trip, next_due_in=timedelta(0))
        claimed = sorted(trip.claimed + more.claimed, key=_order)
        return attrs.evolve(more, saved=trip.saved, claimed=tuple(claimed))

    def _make(self, look: Look, outcomes: Sequence[Outcome], limit: int, claimant: Claimant) -> Trip:
        claim_id = new_id()
        parameters = _claiming(look, limit, claim_id, claimant)
        statement = self._statement(look, outcomes)
        if statement not in _WITHOUT_OUTCOMES:
            parameters |= self._saving.parameters(outcomes)
        fetched = self._database.fetch(statement, parameters)
        trip = _trip(fetched, outcomes, claim_id, claimant)
        pauses = KnownPauses.of_json(fetched[-1][_PAUSED])
        if len(trip.claimed) < limit:
            self._watermarks.note_too_few(look)
        else:
            began_at, seen = fetched[-1][_BEGAN_AT], fetched[-1][_SEEN]
            self._watermarks.note_full_batch(look, trip.claimed, Seen.of_json(seen) if seen else None, began_at)
        self._watermarks.note_outcomes(outcomes)
        trip = self._with_next_due(trip, {**parameters, "now": fetched[-1][_BEGAN_AT]})
        if pauses is NO_PAUSES:
            return trip
        return _with_pauses(trip, pauses, () if len(trip.claimed) == limit else look.request.types)

    def _statement(self, look: Look, outcomes: Sequence[Outcome]) -> LiteralString:
        statements = self._saving.statements
        if not look.is_full:
            return statements.narrow_trip
        if look.is_watchful:
            return statements.watchful_trip
        if look.request.has_patterns:
            return statements.trip if outcomes else CLAIM_JOBS
        return statements.trip_for_types if outcomes else CLAIM_JOBS_OF_TYPES

    def _with_next_due(self, trip: Trip, parameters: dict[str, object]) -> Trip:
        if trip.next_due_in is None or trip.next_due_in >= timedelta(0):
            return trip
        try:
            ((seconds,),) = self._database.fetch(FIND_NEXT_DUE, parameters)
        except BackendError:
            return attrs.evolve(trip, next_due_in=_PAUSE_AFTER_ERROR)
        return attrs.evolve(trip, next_due_in=None if seconds is None else timedelta(seconds=seconds))

    def claim_jobs(self, types: Sequence[str], limit: int, claimant: Claimant) -> tuple[Job, ...]:
        """Claim up to *limit* jobs."""
        return self.make_trip((), types, limit, claimant).claimed

    def save_outcomes(self, outcomes: Sequence[Outcome]) -> frozenset[UUID]:
        """Save *outcomes*; return the ids of the jobs for which it was done."""
        if not outcomes:
            return frozenset()
        saved = self._database.fetch(self._saving.statements.save, self._saving.parameters(outcomes))
        self._watermarks.note_outcomes(outcomes)
        return frozenset(row[0] for row in saved)

    def back_off(self, job_type: str, reason: str, ran_for: timedelta) -> None:
        """Pause a type for all processes, for longer than the last time."""
        parameters = {"shortest": SHORTEST_BACK_OFF, "longest": LONGEST_BACK_OFF, "ran_for": ran_for.total_seconds()}
        with self._connection_for_beats():
            self._database.change(BACK_OFF, {"type": job_type, "reason": reason, **parameters})

    def end_back_off(self, job_type: str) -> None:
        """Have the next back-off of a type begin anew."""
        with self._connection_for_beats():
            self._database.change(END_BACK_OFF, {"type": job_type})

    @contextmanager
    def handler_transaction(self, name: str | None = None) -> Generator[PostgresHandlerTransaction]:
        """Open a transaction within the block: committed at its end, if an outcome was saved, and else rolled back."""
        if name is not None:
            yield from self._transactions.open(name)
            return
        if self._handlers is None:
            raise RegistrationError("this worker store was made without connections for atomic handlers")
        with translate_errors(), self._handlers.pool.connection() as connection:
            try:
                yield from in_transaction(connection, self._handlers, self._saving)
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
        rescues = self._reaper.reap_all(dead_for, max_rescues, if_counts)
        if rescues:
            self._watermarks.look_fully()
        return rescues

    def make_round(
        self,
        dead_for: timedelta,
        max_rescues: int,
        *,
        kept_for: timedelta | None = None,
        if_counts: SilenceCounts = always_counts,
    ) -> Round:
        """Do what ``reap_jobs`` does bit by bit, and look for bundles that have been complete for *kept_for*."""
        done = self._reaper.make_round(dead_for, max_rescues, kept_for, if_counts)
        if done.rescues:
            self._watermarks.look_fully()
        return done

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


def _claiming(look: Look, limit: int, claim_id: UUID, claimant: Claimant) -> dict[str, object]:
    claiming: dict[str, object] = {
        "limit": limit,
        "claim_id": claim_id,
        "lease": claimant.lease,
        "claimed_by": claimant.name,
        "beats": claimant.beats,
    }
    if look.is_full:
        return {**claiming, **rows.wanted_types(look.request.types, look.request.without)}
    return {**claiming, "runs": look.runs, "gaps": look.gaps}


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


def _with_pauses(trip: Trip, pauses: KnownPauses, missed: Sequence[str]) -> Trip:
    """Add what is known of pauses; of their ends, those that concern types of which too few were found."""
    end = pauses.first_end(missed)
    next_due_in = min((each for each in (trip.next_due_in, end) if each is not None), default=None)
    return attrs.evolve(trip, backed_off=pauses.backed_off, next_due_in=next_due_in)


def _order(job: Job) -> tuple[object, ...]:
    # The number of a UUID, which is compared in no time.
    return (-job.priority, job.start_at or job.created_at, job.id.int)
