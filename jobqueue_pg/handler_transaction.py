"""The transaction in which an atomic handler does its work, and which its job's completion joins at last."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import inf
from typing import Any, Final

import psycopg

from jobqueue.errors import JobQueueError, TransactionError, UnavailableError
from jobqueue.outcomes import Outcome
from jobqueue_pg.connection import BoundedConnection
from jobqueue_pg.database import Database
from jobqueue_pg.errors import translate_errors
from jobqueue_pg.joining import Joined, Lent
from jobqueue_pg.queries import saving as queries
from jobqueue_pg.saving import Saving

_ENDED: Final = (
    "the handler has ended its transaction by itself: what it did before that is committed, or rolled back, without "
    "the job's completion; what it did afterwards is rolled back"
)
_BROKEN: Final = (
    "a statement of the handler failed, and its error was caught: put what may fail into a savepoint, such as "
    "`with ctx.connection.transaction()`; all that was done is rolled back"
)


class PostgresHandlerTransaction:
    """The HandlerTransaction on PostgreSQL."""

    def __init__(self, database: Database, join: Callable[[], Joined], saving: Saving, given: object) -> None:
        self._database = database
        self._join = join
        self._joined = join()
        self._saving = saving
        self._given = given
        self.has_begun = False
        self.is_saved = False
        self.number: str | None = None

    def begin(self) -> None:
        """Mark the transaction, so that it is known from any other at its end."""
        self._database.execute(self._joined.connection, queries.MARK_TRANSACTION, {})
        self.has_begun = True

    @property
    def connection(self) -> Any:
        """The connection, for the handler: as it was given."""
        return self._given

    @property
    def is_open(self) -> bool:
        """Whether there is a transaction at all."""
        return self._joined.is_in_transaction

    @property
    def is_cut_off(self) -> bool:
        """Whether the connection is lost, or its server takes no writes any more."""
        connection = self._joined.connection
        return connection.closed or (isinstance(connection, BoundedConnection) and connection.is_demoted)

    def save(self, outcome: Outcome) -> bool:
        """Save what the run led to, as the last statement; return whether the claim still stood."""
        with translate_errors():
            connection = self._connection_to_complete()
            statement, parameters = self._saving.statements.save, self._saving.parameters([outcome])
            saved = self._database.execute(connection, statement, parameters).fetchall()
        self.is_saved = bool(saved)
        return self.is_saved

    def _connection_to_complete(self) -> Lent:
        """Return the connection, unless its framework knows, or the server, that the transaction is broken."""
        if self._joined.is_broken:
            raise TransactionError(_BROKEN)
        try:
            connection = self._join().connection
        except JobQueueError:
            raise
        except Exception as error:
            if self.is_cut_off:
                raise UnavailableError(f"the connection of an atomic handler was lost: {error}") from error
            raise TransactionError(
                f"the transaction of the handler cannot be completed, and all that was done is rolled back: {error}"
            ) from error
        self._check(connection)
        return connection

    def _check(self, connection: Lent) -> None:
        """Refuse a transaction that could not commit as a whole, or whose snapshot hides who has taken the claim."""
        [row] = self._database.execute(connection, queries.PREPARE_TO_COMPLETE, {}).fetchall()
        mark, isolation, read_only, self.number = row
        if mark != "begun":
            raise TransactionError(_ENDED)
        if isolation != "read committed":
            raise TransactionError(
                f"the transaction of an atomic handler must be READ COMMITTED, not {str(isolation).upper()}: "
                "all that was done is rolled back"
            )
        if read_only == "on":
            raise TransactionError("the handler has made its transaction read only, so that nothing can be saved in it")


def in_transaction(
    connection: psycopg.Connection[Any], database: Database, saving: Saving
) -> Generator[PostgresHandlerTransaction]:
    """Open a transaction on *connection*, yield it once, and commit it if an outcome was saved in it."""
    own = Joined(connection)
    transaction = PostgresHandlerTransaction(database, lambda: own, saving, connection)
    with connection.transaction(force_rollback=True) as block:
        transaction.begin()
        with _however_long(connection):
            yield transaction
        block.force_rollback = not transaction.is_saved
    # On a connection that it knows to be lost, the driver does not even try to commit, and says nothing.
    if transaction.is_saved and transaction.is_cut_off:
        raise UnavailableError("the connection of an atomic handler was lost before its transaction was committed")


@contextmanager
def _however_long(connection: psycopg.Connection[Any]) -> Generator[None]:
    """Wait for answers within the block however long they take: that is for the handler to say."""
    if not isinstance(connection, BoundedConnection):
        yield
        return
    usual, connection.answer_within = connection.answer_within, inf
    try:
        yield
    finally:
        connection.answer_within = usual
