"""Jobs and bundles as rows in PostgreSQL, as applications use them: each method is one statement or one transaction."""

import logging
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from datetime import datetime, timedelta
from typing import Final, LiteralString
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.clock import moved_now
from jobqueue.errors import JobBundleNotFoundError, JobNotFoundError
from jobqueue.job_filter import Cursor, JobFilter
from jobqueue.models import Fence, Job, State
from jobqueue.retention import KEEP_ALL, Retention
from jobqueue.status import Status
from jobqueue.store import Within
from jobqueue.uniqueness import OnConflict
from jobqueue_pg import rows
from jobqueue_pg.acting import PostgresActing, parameters_of
from jobqueue_pg.adding import Adding
from jobqueue_pg.cleaning import PostgresCleaning
from jobqueue_pg.counting import PostgresCounting
from jobqueue_pg.database import Database, Joins, Parameters
from jobqueue_pg.inspecting import PostgresInspecting
from jobqueue_pg.joining import Lent
from jobqueue_pg.named_transactions import NO_TRANSACTIONS, Transactions, check_names
from jobqueue_pg.pauses import PostgresPauses
from jobqueue_pg.pool import WORKER_CONNECTIONS, Pool, application_pool, handler_pool, worker_pool
from jobqueue_pg.queries import applications as queries
from jobqueue_pg.queries import listing, managing
from jobqueue_pg.schedules import PostgresSchedules
from jobqueue_pg.schema import channel_prefix
from jobqueue_pg.taking_back import reset, taking_keys_back
from jobqueue_pg.within import joining
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
        unique_lock_timeout: timedelta = _LOCK_TIMEOUT,
        retention: Retention = KEEP_ALL,
        joins: Joins | None = None,
        transactions: Transactions = NO_TRANSACTIONS,
        now: Callable[[], datetime | None] = moved_now,
    ) -> None:
        self._conninfo = conninfo
        self._prepares = prepared_statements
        self._unique_lock_timeout = unique_lock_timeout
        self._joins = joins or _nothing
        self._transactions = transactions
        self.retention = retention
        self._channels = {name: f"{channel_prefix(schema)}{name}" for name in ("claim_lost", "job_available")}
        self._own = Database(application_pool(conninfo, pool_size, prepares=prepared_statements), schema, now)
        self._apart: PostgresStore = self
        self._work_on(self._own)
        if joins is not None:
            self._apart = copy(self)
            self._apart._apart = self._apart  # noqa: SLF001 - of its own kind
            self._work_on(self._own.joining(joins))

    def _work_on(self, database: Database) -> None:
        self._database = database
        self._adding = Adding(database, self._unique_lock_timeout)
        self._pauses = PostgresPauses(database)
        self.schedules = PostgresSchedules(database)
        self.cleaning = PostgresCleaning(database)
        self.acting = PostgresActing(database, self._channels)
        self.counting = PostgresCounting(database)
        self.inspecting = PostgresInspecting(database)

    @property
    def apart(self) -> "PostgresStore":
        """The same rows, by connections of our own, whatever transaction the application has open."""
        return self._apart

    def add_job(
        self,
        job: Job,
        *,
        delay: timedelta | None,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Job:
        """Add a job that has an origin; return it, or the one that holds its unique key."""
        return self._adding.add_job(job, delay=delay, on_conflict=on_conflict, notify=notify, connection=connection)

    def add_jobs(
        self,
        jobs: Sequence[Job],
        *,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Sequence[Job]:
        """Add jobs that have an origin; return them, or those that hold their unique keys."""
        return self._adding.add_jobs(jobs, on_conflict=on_conflict, notify=notify, connection=connection)

    def add_bundle(self, bundle: JobBundle, *, notify: bool = True, connection: object = None) -> None:
        """Add a bundle with its members."""
        self._adding.add_bundle(bundle, notify=notify, connection=connection)

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
        found = self._database.fetch(queries.GET_BUNDLE, {"id": bundle_id})
        bundle = rows.bundle_of_rows(found)
        if bundle is None:
            raise JobBundleNotFoundError(bundle_id)
        return bundle

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
        parameters = {**parameters_of(which), **place}
        return self._jobs(listing.list_jobs(parameters), parameters)

    def _jobs(self, statement: LiteralString, parameters: Parameters) -> list[Job]:
        return [rows.job_of_row(row) for row in self._database.fetch(statement, parameters)]

    def get_status(self) -> Status:
        """Count everything."""
        counts: dict[str, dict[State, int]] = {}
        for job_type, state, number in self._database.fetch(queries.COUNT_JOBS, {}):
            counts.setdefault(job_type, {})[State(state)] = number
        [[num_job_bundles]] = self._database.fetch(queries.COUNT_BUNDLES, {})
        num_jobs = sum(sum(states.values()) for states in counts.values())
        return Status(
            num_jobs=num_jobs,
            num_job_bundles=num_job_bundles,
            by_type_and_state=counts,
            paused=self._pauses.paused_types(),
        )

    def reset_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make jobs as good as new."""
        return self._reset(managing.RESET_JOBS, job_ids)

    def replay_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make those of the jobs that have failed as good as new."""
        return self._reset(managing.REPLAY_JOBS, job_ids)

    def _reset(self, statement: LiteralString, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        ids = list(job_ids)

        def act(takes: bool) -> frozenset[UUID]:  # noqa: FBT001 - it has a name in the statement
            which = {**self._channels, "ids": ids, "takes_keys_back": takes}
            changed = self._database.transact(lambda lent: reset(self._database, lent, ids, statement, which))
            return frozenset(row[0] for row in changed)

        return taking_keys_back(act)

    def cancel_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Stop those of the jobs that have not stopped."""
        return self._ids(managing.CANCEL_JOBS, {"ids": list(job_ids)})

    def reschedule_job(self, job_id: UUID, start_at: datetime | None) -> bool:
        """Have a job that has not started be due at *start_at*, or now."""
        return bool(self._ids(managing.RESCHEDULE_JOB, {"id": job_id, "start_at": start_at}))

    def save_progress(self, fence: Fence, progress_json: str) -> bool:
        """Note what a claimed job says of its progress."""
        claim = {"id": fence.job_id, "started_at": fence.started_at, "claim_id": fence.claim_id}
        # It is to be seen while the handler runs, whose own transaction may take as long.
        return self._own.change(managing.SAVE_PROGRESS, {**claim, "progress": progress_json}) == 1

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

        def delete(connection: Lent) -> None:
            self._database.execute(connection, managing.DELETE_ALL_JOBS, self._channels)
            self._database.execute(connection, managing.DELETE_ALL_BUNDLES, {})

        self._database.transact(delete)

    def _ids(self, statement: LiteralString, parameters: Parameters) -> frozenset[UUID]:
        return frozenset(row[0] for row in self._database.fetch(statement, {**self._channels, **parameters}))

    @property
    def pauses(self) -> PostgresPauses:
        """What is paused."""
        return self._pauses

    def for_workers(
        self,
        *,
        lock_timeout: timedelta = _LOCK_TIMEOUT,
        atomic_connections: int = 0,
        transactions: Collection[str] = (),
    ) -> PostgresWorkerStore:
        """Return the same rows over the few connections of one worker pool."""
        check_names(transactions, self._transactions)
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
            retention=self.retention,
            transactions=self._transactions,
        )

    def _over(self, pool: Pool) -> Database:
        return Database(pool, self._own.schema, self._own.now)

    @contextmanager
    def within(self, connection: object) -> Generator[Within]:
        """Have all calls in this thread be a part of the transaction on *connection* within the block: for tests."""
        given = self._joined_otherwise() if connection is None else connection
        if given is None:
            own = PostgresWorkerStore(self._own, self._own, retention=self.retention, transactions=self._transactions)
            yield Within(own, nullcontext)
            return
        with joining(given, self._own, retention=self.retention, transactions=self._transactions) as within:
            yield within

    def _joined_otherwise(self) -> object | None:
        """Return what calls without a connection join here."""
        return self._own.held or self._joins()

    def close(self) -> None:
        """Give up the connections."""
        self._own.close()


def _nothing() -> None:
    pass
