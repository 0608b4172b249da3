"""How jobs get into their table: few by one statement, many by COPY; in a transaction of our own or of the caller's."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final, LiteralString
from uuid import UUID

import psycopg
from psycopg.errors import UniqueViolation

from jobqueue.bundle import JobBundle
from jobqueue.errors import BackendError, DuplicateJobError
from jobqueue.models import Job
from jobqueue.uniqueness import OnConflict
from jobqueue_pg import rows
from jobqueue_pg.database import Database, Parameters
from jobqueue_pg.joining import Joined, Lent
from jobqueue_pg.queries import applications as queries
from jobqueue_pg.unique_adding import UniqueAdding, meant_by

# COPY waits for the server twice. From so many jobs on it is faster all the same, over a network too.
_LEAST_JOBS_TO_COPY: Final = 100
# What a statement adds the server keeps once more until its end, for the triggers.
_MOST_JOBS_TO_COPY: Final = 20_000

_Statement = tuple[LiteralString, Parameters]


class Adding:
    """Adds jobs and bundles to the tables of a database.

    *connection* is what the caller has given: None, or something whose transaction is to be joined. Without *notify*,
    nobody is woken for what is added.
    """

    def __init__(self, database: Database, patience: timedelta) -> None:
        self._database = database
        self._patience = patience

    def add_job(
        self, job: Job, *, delay: timedelta | None, on_conflict: OnConflict, notify: bool, connection: object
    ) -> Job:
        """Add a job that has an origin; return it, or the one that holds its key. Raises DuplicateJobError."""
        callers = self._database.joined(connection)
        if job.unique_key is not None:
            unique = UniqueAdding(self._database, self._patience, on_conflict, notify)
            held = self._perform_uniquely(lambda lent: unique.add(lent, [job], delay), callers, [job])
            return held.get(job.id, job)
        statement = queries.ADD_JOB if notify else queries.ADD_JOB_QUIETLY
        parameters = rows.job_parameters(job, delay)
        run = self._database.run if callers is None else self._database.execute
        self._perform(lambda lent: run(lent, statement, parameters), callers, [job], is_one_statement=True)
        return job

    def add_jobs(
        self, jobs: Sequence[Job], *, on_conflict: OnConflict, notify: bool, connection: object
    ) -> Sequence[Job]:
        """Add jobs that have an origin; return them, or those that hold their keys. Raises DuplicateJobError."""
        callers = self._database.joined(connection)
        unique = [job for job in jobs if job.unique_key is not None]
        if unique:
            return self._add_uniquely(
                jobs, unique, UniqueAdding(self._database, self._patience, on_conflict, notify), callers
            )
        if self._copies(jobs, callers):
            self._copy(None, jobs, callers, notify=notify)
        else:
            self._execute(_adding(jobs, notify=notify), callers, jobs)
        return jobs

    def _add_uniquely(
        self, jobs: Sequence[Job], unique: Sequence[Job], adding: UniqueAdding, callers: Joined | None
    ) -> Sequence[Job]:
        """Add *jobs*, of which some are *unique*: these by INSERT, which alone can leave duplicates out."""
        others = [job for job in jobs if job.unique_key is None]
        copies = self._copies(others, callers)

        def add(connection: Lent) -> dict[UUID, Job]:
            held = adding.add(connection, unique)
            if copies:
                self._copy_on(connection, None, others, notify=adding.notify)
            else:
                self._execute_on(connection, _adding(others, notify=adding.notify))
            return held

        held = self._perform_uniquely(add, callers, jobs)
        return [held.get(job.id, job) for job in jobs]

    def add_bundle(self, bundle: JobBundle, *, notify: bool, connection: object) -> None:
        """Add a bundle with its members. Raises DuplicateJobError."""
        callers = self._database.joined(connection)
        if self._copies(bundle.jobs, callers):
            self._copy(bundle, bundle.jobs, callers, notify=notify)
        else:
            (_, first), *others = _adding(bundle.jobs, notify=notify)
            statement = queries.ADD_BUNDLE if notify else queries.ADD_BUNDLE_QUIETLY
            statements: list[_Statement] = [(statement, {**rows.bundle_parameters(bundle), **first}), *others]
            self._execute(statements, callers, [bundle, *bundle.jobs])

    def _copies(self, jobs: Sequence[Job], callers: Joined | None) -> bool:
        """Return whether jobs are to be added by COPY: not within a pipeline, nor under row-level security."""
        if len(jobs) < _LEAST_JOBS_TO_COPY:
            return False
        if callers is None:
            return self._database.perform(self._is_copied_to)
        return callers.can_copy and callers.perform(self._is_copied_to, is_one_statement=True)

    def _is_copied_to(self, connection: Lent) -> bool:
        where = {"schema": self._database.schema}
        return self._database.execute(connection, queries.HAS_ROW_SECURITY, where).fetchone() != (True,)

    def _execute(
        self, statements: Sequence[_Statement], callers: Joined | None, added: Iterable[Job | JobBundle]
    ) -> None:
        def execute(connection: Lent) -> None:
            self._execute_on(connection, statements)

        self._perform(execute, callers, added, is_one_statement=len(statements) == 1)

    def _execute_on(self, connection: Lent, statements: Iterable[_Statement]) -> None:
        for statement, parameters in statements:
            self._database.execute(connection, statement, parameters)

    def _copy(self, bundle: JobBundle | None, jobs: Sequence[Job], callers: Joined | None, *, notify: bool) -> None:
        def copy(connection: Lent) -> None:
            self._copy_on(connection, bundle, jobs, notify=notify)

        is_one_statement = notify and bundle is None and len(jobs) <= _MOST_JOBS_TO_COPY
        added: Sequence[Job | JobBundle] = jobs if bundle is None else [bundle, *jobs]
        self._perform(copy, callers, added, is_one_statement=is_one_statement)

    def _copy_on(self, connection: Lent, bundle: JobBundle | None, jobs: Sequence[Job], *, notify: bool) -> None:
        before = None if notify else self._hush(connection)
        if bundle is not None:
            parameters = {**rows.bundle_parameters(bundle), "jobs": "[]"}
            self._database.execute(connection, queries.ADD_BUNDLE, parameters)
        moment = self._database.now()
        statement = queries.COPY_JOBS if moment is None else queries.COPY_JOBS_OF_A_MOMENT
        for start in range(0, len(jobs), _MOST_JOBS_TO_COPY):
            blocks = rows.job_blocks(jobs[start : start + _MOST_JOBS_TO_COPY], moment)
            self._database.copy(connection, statement, blocks)
        if not notify:
            self._database.execute(connection, queries.SPEAK_AGAIN, {"before": before})

    def _hush(self, connection: Lent) -> str | None:
        """Have nobody notified in this transaction any more; return what to set that to afterwards."""
        [(before, _)] = self._database.execute(connection, queries.HUSH, {}).fetchall()
        return before  # type: ignore[no-any-return]

    def _perform(
        self,
        work: Callable[[Lent], object],
        callers: Joined | None,
        added: Iterable[Job | JobBundle],
        *,
        is_one_statement: bool,
    ) -> None:
        """Do *work* as a whole, or not at all."""
        try:
            if callers is not None:
                callers.perform(work, is_one_statement=is_one_statement)
            elif is_one_statement:
                self._database.perform(work)
            else:
                self._database.transact(work)
        except BackendError as error:
            if not isinstance(error.__cause__, UniqueViolation):
                raise
            raise _duplicate(error.__cause__, added) from error.__cause__

    def _perform_uniquely(
        self, work: Callable[[Lent], dict[UUID, Job]], callers: Joined | None, jobs: Sequence[Job]
    ) -> dict[UUID, Job]:
        """Do *work*, which adds *jobs* with unique keys, and leave the caller's transaction usable; return its result.

        A single job takes one statement, unless its key is held; and what more it takes then, need not be one with it.
        """
        held: dict[UUID, Job] = {}

        def note(connection: Lent) -> None:
            held.update(work(connection))

        try:
            self._perform(note, callers, jobs, is_one_statement=callers is None and len(jobs) == 1)
        except BackendError as error:
            meant = meant_by(error.__cause__, jobs) if isinstance(error.__cause__, psycopg.Error) else None
            if meant is None:
                raise
            raise meant from error.__cause__
        return held


def _adding(jobs: Sequence[Job], *, notify: bool) -> list[_Statement]:
    statement = queries.ADD_JOBS if notify else queries.ADD_JOBS_QUIETLY
    return [(statement, {"jobs": text}) for text in rows.job_recordsets(jobs)]


def _duplicate(error: UniqueViolation, added: Iterable[Job | JobBundle]) -> DuplicateJobError:
    """Say which id is there already."""
    detail = error.diag.message_detail or ""
    existing = next((each.id for each in added if str(each.id) in detail), None)
    return DuplicateJobError(
        f"{existing or 'one of the ids'} is in the queue already; nothing was added", existing_id=existing
    )
