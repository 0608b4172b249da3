"""Jobs and bundles as rows in PostgreSQL, as applications use them: each method is one statement or one transaction."""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import attrs
import psycopg
from psycopg.errors import UniqueViolation

from jobqueue.errors import DuplicateJobError, JobBundleNotFoundError, JobNotFoundError
from jobqueue.models import Job, JobBundle, State, Status
from jobqueue.outcomes import Fence
from jobqueue.store import Cursor, JobFilter
from jobqueue_pg import rows
from jobqueue_pg.database import Database, Parameters
from jobqueue_pg.errors import translate_errors
from jobqueue_pg.joining import joined
from jobqueue_pg.pool import WORKER_CONNECTIONS, Pool, application_pool, handler_pool, worker_pool
from jobqueue_pg.queries import applications as queries
from jobqueue_pg.queries import managing
from jobqueue_pg.schema import channel_prefix
from jobqueue_pg.worker_store import PostgresWorkerStore

logger = logging.getLogger(__name__)

_LOCK_TIMEOUT: Final = timedelta(seconds=2)
_LOCK_TIMEOUTS_OF_A_BEAT: Final = 3


class PostgresStore:
    """The Store on PostgreSQL, over a pool of connections of its own that is opened at first need."""

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str = "worker",
        pool_size: int = 4,
        prepared_statements: bool | None = None,
        now: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._conninfo = conninfo
        self._prepares = prepared_statements
        self._database = Database(application_pool(conninfo, pool_size, prepares=prepared_statements), schema, now)
        self._channels = {name: f"{channel_prefix(schema)}{name}" for name in ("claim_lost", "job_available")}

    def add_job(self, job: Job, *, delay: timedelta | None, connection: object = None) -> None:
        """Add a job that has an origin."""
        with _duplicate_named([job.id]):
            self._add([(queries.ADD_JOB, rows.job_parameters(job, delay))], connection)

    def add_jobs(self, jobs: Sequence[Job], *, connection: object = None) -> None:
        """Add jobs that have an origin."""
        statements: list[_Statement] = [(queries.ADD_JOBS, {"jobs": text}) for text in rows.job_recordsets(jobs)]
        with _duplicate_named([job.id for job in jobs]):
            self._add(statements, connection)

    def add_bundle(self, bundle: JobBundle, *, connection: object = None) -> None:
        """Add a bundle with its members."""
        first, *others = rows.job_recordsets(bundle.jobs)
        bundle_and_first = {**rows.bundle_parameters(bundle), "jobs": first}
        statements: list[_Statement] = [
            (queries.ADD_BUNDLE, bundle_and_first),
            *((queries.ADD_JOBS, {"jobs": text}) for text in others),
        ]
        with _duplicate_named([bundle.id, *(job.id for job in bundle.jobs)]):
            self._add(statements, connection)

    def _add(self, statements: "Sequence[_Statement]", connection: object) -> None:
        def add_to(connection: psycopg.Connection[Any]) -> None:
            for statement, parameters in statements:
                self._database.execute(connection, statement, parameters)

        if connection is not None:
            callers = joined(connection)
            # Several statements are all or none on an autocommit connection, too.
            with translate_errors(), callers.transaction() if len(statements) > 1 else nullcontext():
                add_to(callers)
        elif len(statements) == 1:
            self._database.change(*statements[0])
        else:
            self._database.transact(add_to)

    def get_job(self, job_id: UUID) -> Job:
        """Read a job."""
        found = self._jobs(queries.GET_JOB, {"id": job_id})
        if not found:
            raise JobNotFoundError(job_id)
        return found[0]

    def get_jobs(self, job_ids: Iterable[UUID]) -> list[Job]:
        """Read those of the jobs that are there."""
        return self._jobs(queries.GET_JOBS, {"ids": list(job_ids)})

    def get_job_bundle(self, bundle_id: UUID) -> JobBundle:
        """Read a bundle and its members, both as of one moment."""

        def read(connection: psycopg.Connection[Any]) -> tuple[rows.Row | None, list[rows.Row]]:
            bundle = self._database.execute(connection, queries.GET_BUNDLE, {"id": bundle_id})
            members = self._database.execute(connection, queries.GET_JOBS_OF_BUNDLE, {"id": bundle_id})
            return bundle.fetchone(), members.fetchall()

        bundle, members = self._database.transact(read, isolation="repeatable read, read only")
        if bundle is None:
            raise JobBundleNotFoundError(bundle_id)
        return rows.bundle_of_row(bundle, map(rows.job_of_row, members))

    def get_all_jobs_to_do(self) -> list[Job]:
        """Read all jobs that have not stopped."""
        return self._jobs(queries.GET_JOBS_TO_DO, {})

    def get_all_jobs_started_before(self, moment: datetime) -> list[Job]:
        """Read all running jobs that were claimed before *moment*."""
        return self._jobs(queries.GET_JOBS_STARTED_BEFORE, {"moment": moment})

    def get_all_jobs_with_errors(self) -> list[Job]:
        """Read all jobs that have an error message."""
        return self._jobs(queries.GET_JOBS_WITH_ERRORS, {})

    def list_jobs(self, which: JobFilter, *, limit: int, after: Cursor | None) -> list[Job]:
        """Read the newest jobs, or those that follow the place *after*."""
        created_at, job_id = after or (None, None)
        place = {"after_created_at": created_at, "after_id": job_id, "limit": limit}
        return self._jobs(queries.LIST_JOBS, {**attrs.asdict(which), **place})

    def _jobs(self, statement: LiteralString, parameters: Parameters) -> list[Job]:
        return [rows.job_of_row(row) for row in self._database.fetch(statement, parameters)]

    def get_status(self) -> Status:
        """Count everything."""
        counts: dict[str, dict[State, int]] = {}
        for job_type, state, number in self._database.fetch(queries.COUNT_JOBS, {}):
            counts.setdefault(job_type, {})[State(state)] = number
        [[num_job_bundles]] = self._database.fetch(queries.COUNT_BUNDLES, {})
        num_jobs = sum(sum(states.values()) for states in counts.values())
        return Status(num_jobs=num_jobs, num_job_bundles=num_job_bundles, by_type_and_state=counts)

    def reset_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make jobs as good as new."""
        return self._ids(managing.RESET_JOBS, {"ids": list(job_ids)})

    def replay_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make those of the jobs that have failed as good as new."""
        return self._ids(managing.REPLAY_JOBS, {"ids": list(job_ids)})

    def cancel_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Stop those of the jobs that have not stopped."""
        return self._ids(managing.CANCEL_JOBS, {"ids": list(job_ids)})

    def reschedule_job(self, job_id: UUID, start_at: datetime | None) -> bool:
        """Have a job that has not started be due at *start_at*, or now."""
        return bool(self._ids(managing.RESCHEDULE_JOB, {"id": job_id, "start_at": start_at}))

    def save_progress(self, fence: Fence, progress_json: str) -> bool:
        """Note what a claimed job says of its progress."""
        id_, started_at, claim_id = fence
        claim = {"id": id_, "started_at": started_at, "claim_id": claim_id}
        return self._database.change(managing.SAVE_PROGRESS, {**claim, "progress": progress_json}) == 1

    def delete_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Delete jobs and take them out of the counts of their bundles."""
        return self._ids(managing.DELETE_JOBS, {"ids": list(job_ids)})

    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*."""
        return len(self._ids(managing.DELETE_JOBS_FROM_ORIGIN, {"origin": origin}))

    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*."""
        return len(self._ids(managing.DELETE_JOBS_OF_TYPE, {"type": type}))

    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle."""
        return len(self._ids(managing.DELETE_FINISHED_JOBS, {}))

    def delete_job_bundles(self, bundle_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Delete bundles with their members."""
        return self._ids(managing.DELETE_BUNDLES, {"ids": list(bundle_ids)})

    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*."""
        return len(self._ids(managing.DELETE_BUNDLES_FROM_ORIGIN, {"origin": origin}))

    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*."""
        return len(self._ids(managing.DELETE_BUNDLES_OF_TYPE, {"type": type}))

    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything: the jobs first, as locks are taken in that order everywhere."""

        def delete(connection: psycopg.Connection[Any]) -> None:
            self._database.execute(connection, managing.DELETE_ALL_JOBS, self._channels)
            self._database.execute(connection, managing.DELETE_ALL_BUNDLES, {})

        self._database.transact(delete)

    def _ids(self, statement: LiteralString, parameters: Parameters) -> frozenset[UUID]:
        return frozenset(row[0] for row in self._database.fetch(statement, {**self._channels, **parameters}))

    def for_workers(
        self, *, lock_timeout: timedelta = _LOCK_TIMEOUT, atomic_connections: int = 0
    ) -> PostgresWorkerStore:
        """Return the same rows over the few connections of one worker pool."""
        logger.info(
            "up to %d more connections are opened to claim jobs and to save outcomes, and %d for atomic handlers",
            WORKER_CONNECTIONS,
            atomic_connections,
        )
        return PostgresWorkerStore(
            self._over(worker_pool(self._conninfo, lock_timeout, prepares=self._prepares)),
            self._over(handler_pool(self._conninfo, atomic_connections, prepares=self._prepares))
            if atomic_connections
            else None,
            beat_within=lock_timeout * _LOCK_TIMEOUTS_OF_A_BEAT,
        )

    def _over(self, pool: Pool) -> Database:
        return Database(pool, self._database.schema, self._database.now)

    def close(self) -> None:
        """Give up the connections."""
        self._database.close()


_Statement = tuple[LiteralString, Parameters]


@contextmanager
def _duplicate_named(ids: Sequence[UUID]) -> Generator[None]:
    """Say which id is there already, when the database says that one is."""
    try:
        yield
    except Exception as error:
        if not isinstance(error.__cause__, UniqueViolation):
            raise
        detail = error.__cause__.diag.message_detail or ""
        existing = next((id_ for id_ in ids if str(id_) in detail), None)
        raise DuplicateJobError(
            f"{existing or 'one of the ids'} is in the queue already; nothing was added", existing_id=existing
        ) from error.__cause__
