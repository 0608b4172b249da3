"""How jobs with unique keys get into their table, and what becomes of those whose keys others hold."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import attrs
import psycopg
from psycopg.errors import DeadlockDetected, InsufficientPrivilege, LockNotAvailable, SerializationFailure

from jobqueue.errors import DuplicateJobError
from jobqueue.models import Job
from jobqueue.store import duplicate_of
from jobqueue.uniqueness import OnConflict
from jobqueue_pg import rows
from jobqueue_pg.database import Database
from jobqueue_pg.joining import Lent
from jobqueue_pg.queries import applications as queries
from jobqueue_pg.queries import uniqueness

# Each time a key was held when it was asked for, and was not when the job was looked at that had held it.
_TIMES_TO_TRY: Final = 10


@attrs.frozen
class _Refusal:
    """A job that was not added, and which one holds its key, if that can be seen; its time may be over."""

    job: Job
    holder_id: UUID | None
    is_over: bool


@attrs.frozen
class UniqueAdding:
    """Adds jobs with unique keys, waiting for other transactions that want the same keys no longer than *patience*.

    It takes several statements in the worst case. None of them leaves a setting changed.
    """

    database: Database
    patience: timedelta
    on_conflict: OnConflict
    notify: bool

    def add(self, connection: Lent, jobs: Iterable[Job], delay: timedelta | None = None) -> dict[UUID, Job]:
        """Add those of *jobs* whose keys are free; return the jobs that hold the keys of the others, by their ids.

        Raises:
            DuplicateJobError: a key is held, and that is an error.
        """
        held: dict[UUID, Job] = {}
        wanting = sorted(jobs, key=_key)
        for _ in range(_TIMES_TO_TRY):
            refusals = self._insert(connection, wanting, delay)
            self._free(connection, [refusal.holder_id for refusal in refusals if refusal.is_over])
            held |= self._heed(connection, [refusal for refusal in refusals if not refusal.is_over])
            wanting = [refusal.job for refusal in refusals if refusal.job.id not in held]
            if not wanting:
                return held
        raise pending(wanting)

    def _insert(self, connection: Lent, jobs: Sequence[Job], delay: timedelta | None) -> list[_Refusal]:
        wanted = {job.id: job for job in jobs}
        refusals: list[_Refusal] = []
        for text in rows.job_recordsets(jobs):
            parameters = {"jobs": text, "delay": None if delay is None else delay.total_seconds()}
            for _, _, job_id, holder_id, is_over in self._execute(connection, uniqueness.ADD_UNIQUE_JOBS, parameters):
                if job_id is not None:
                    refusals.append(_Refusal(wanted[job_id], holder_id, bool(is_over)))
        return refusals

    def _free(self, connection: Lent, ids: Sequence[UUID | None]) -> None:
        """Free the keys of those whose time is over, unless somebody else has done so."""
        if ids:
            self._execute(connection, uniqueness.FREE_KEYS, {"ids": ids})

    def _heed(self, connection: Lent, refusals: Iterable[_Refusal]) -> Mapping[UUID, Job]:
        """Return who holds the keys of jobs that were refused, as far as they still do, as duplicates."""
        seen = {refusal.holder_id: refusal.job for refusal in refusals if refusal.holder_id is not None}
        if not seen:
            return {}
        if self.on_conflict == "raise":
            raise duplicate_of(*next(iter(seen.items())))
        if self.on_conflict == "replace_payload":
            payloads = {holder_id: job.payload_json for holder_id, job in seen.items()}
            self._execute(connection, uniqueness.REPLACE_PAYLOADS, {"payloads": rows.payloads_json(payloads)})
        return {
            seen[holder.id].id: attrs.evolve(holder, is_duplicate=True)
            for holder in self._read(connection, seen)
            if holder.unique_key is not None
        }

    def _read(self, connection: Lent, seen: Mapping[UUID, Job]) -> list[Job]:
        try:
            found = self.database.execute(connection, queries.GET_JOBS, {"ids": list(seen)}).fetchall()
        except InsufficientPrivilege as error:
            # Who may only add is told at least which one it is.
            raise duplicate_of(*next(iter(seen.items()))) from error
        return [rows.job_of_row(row) for row in found]

    def _execute(self, connection: Lent, statement: Any, parameters: Mapping[str, object]) -> list[rows.Row]:
        settings = {"patience": self.patience, "notify": self.notify}
        return self.database.execute(connection, statement, {**settings, **parameters}).fetchall()


def _key(job: Job) -> tuple[str, str]:
    return job.type, job.unique_key or ""


def pending(jobs: Iterable[Job]) -> DuplicateJobError:
    """Make the error that says that others decide on the keys of *jobs*, and have not done so in time."""
    keys = ", ".join(f"{job.unique_key!r} of type {job.type!r}" for job in jobs)
    return DuplicateJobError(
        f"another transaction, which has not ended in time, has added or changed a job with one of the unique keys "
        f"{keys:.300}; nothing was added: try again",
        existing_id=None,
        pending=True,
    )


def meant_by(error: psycopg.Error, jobs: Sequence[Job]) -> DuplicateJobError | None:
    """Return what *error* means that has come of adding *jobs*, if that is about unique keys."""
    if isinstance(error, LockNotAvailable) and error.diag.context is not None:
        return pending(jobs)
    if isinstance(error, SerializationFailure):
        return DuplicateJobError(
            "another job holds a unique key, and this transaction cannot see it: it is REPEATABLE READ or "
            "SERIALIZABLE, and began before that was added. Roll it back, and do all of it again; nothing was added",
            existing_id=None,
        )
    if isinstance(error, DeadlockDetected):
        return pending(jobs)
    return None
