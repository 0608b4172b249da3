"""A worker's view of the rows in a transaction that somebody else has open: nothing is committed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from jobqueue.errors import JobQueueError
from jobqueue.retention import Retention
from jobqueue.store import Within
from jobqueue_pg.database import Database
from jobqueue_pg.errors import translated
from jobqueue_pg.handler_transaction import PostgresHandlerTransaction
from jobqueue_pg.joining import joined
from jobqueue_pg.joining.undoing import drivers_own, settled, undoable
from jobqueue_pg.named_transactions import Transactions, check_names, driver_error_of
from jobqueue_pg.worker_store import PostgresWorkerStore


class JoinedWorkerStore(PostgresWorkerStore):
    """The WorkerStore over a database that *given* is held in place of: atomic handlers work in its transaction."""

    def __init__(self, database: Database, given: object, *, retention: Retention, transactions: Transactions) -> None:
        super().__init__(database, retention=retention, transactions=transactions)
        self._names = transactions.keys()
        self._given = given

    @contextmanager
    def handler_transaction(self, name: str | None = None) -> Generator[PostgresHandlerTransaction]:
        """Open a savepoint within the block: it stays if an outcome was saved, and is undone if not.

        The connection is the caller's, in place of whatever a block *name* of the application would give.
        """
        if name is not None:
            check_names([name], self._names)
        try:
            with undoable(self._given) as block:
                transaction = PostgresHandlerTransaction(
                    self._database, lambda: joined(self._given), self._saving, self._connection_for(name)
                )
                transaction.begin()
                yield transaction
                block.stays = transaction.is_saved
        except JobQueueError:
            raise
        except Exception as error:
            cause = driver_error_of(error)
            if cause is None:
                raise
            raise translated(cause) from cause

    def _connection_for(self, name: str | None) -> Any:
        """Return what a handler is given: for a transaction of our own it would be the driver's connection."""
        return drivers_own(self._given) if name is None else self._given

    @contextmanager
    def guard(self) -> Generator[None]:
        """Undo what has left the transaction unusable at the end of the block."""
        with undoable(self._given):
            yield


@contextmanager
def joining(
    given: object, database: Database, *, retention: Retention, transactions: Transactions
) -> Generator[Within]:
    """Hold *given* in place of the pool of *database* within the block. Raises as ``joined``."""
    held = settled(given)
    with database.holding(held):
        workers = JoinedWorkerStore(database, held, retention=retention, transactions=transactions)
        yield Within(workers, workers.guard)
