"""Transactions that the application opens for its atomic handlers, each by its name."""

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType
from typing import Any, Final

import psycopg

from jobqueue.errors import BackendError, JobQueueError, RegistrationError, TransactionError, UnavailableError
from jobqueue_pg.database import Database
from jobqueue_pg.errors import translated
from jobqueue_pg.handler_transaction import PostgresHandlerTransaction
from jobqueue_pg.joining import joined, psycopg2
from jobqueue_pg.queries import saving as queries
from jobqueue_pg.saving import Saving

logger = logging.getLogger(__name__)

Transactions = Mapping[str, Callable[[], AbstractContextManager[Any]]]
"""How to open each: a block that gives what can be joined, commits at its end, and rolls back after an exception."""

NO_TRANSACTIONS: Final[Transactions] = MappingProxyType({})
_MOST_CAUSES: Final = 4


class _NothingToCommitError(Exception):
    """Leaves the application's block, so that it rolls back: what the handler did is not to stay."""


def check_names(names: Collection[str], transactions: Collection[str]) -> None:
    """Raise RegistrationError unless all of *names* are those of *transactions*."""
    unknown = sorted(set(names) - set(transactions))
    if unknown:
        known = ", ".join(map(repr, sorted(transactions))) or "none"
        raise RegistrationError(
            f"a handler is registered with atomic={unknown[0]!r}, but the service has no transaction of that name: its "
            f"option transactions names {known}"
        )


class NamedTransactions:
    """Opens the application's transactions for the handlers of one worker pool."""

    def __init__(self, transactions: Transactions, database: Database, saving: Saving) -> None:
        self._transactions = transactions
        self._database = database
        self._saving = saving
        self._known_to_commit = set[str]()

    def open(self, name: str) -> Generator[PostgresHandlerTransaction]:
        """Open the transaction *name*, yield it once, and have it commit if an outcome was saved in it.

        Raises:
            TransactionError: it is none, or has ended with an error that is not the database's.
            BackendError: the database would not begin, or commit it.
        """
        check_names([name], self._transactions)
        transaction: PostgresHandlerTransaction | None = None
        raised: BaseException | None = None
        nothing = _NothingToCommitError(f"what was done in {name!r} is rolled back")
        try:
            with self._transactions[name]() as given:
                transaction = PostgresHandlerTransaction(self._database, lambda: joined(given), self._saving, given)
                transaction.begin()
                _check_begun(transaction, name)
                try:
                    yield transaction
                except BaseException as error:
                    raised = error
                    raise
                _check_end(transaction, name, nothing)
        except Exception as error:
            if raised is None and self._has_committed(transaction):
                logger.exception("the transaction %r is committed with its job, and what was due then has failed", name)
                return
            if error is raised or isinstance(error, JobQueueError):
                raise
            if error is not nothing:
                _heed(error, name, transaction)
        if raised is not None:
            raise raised  # which the application's block has swallowed
        if transaction is not None and transaction.is_saved and name not in self._known_to_commit:
            self._check_committed(name, transaction.number)

    def _has_committed(self, transaction: PostgresHandlerTransaction | None) -> bool:
        """Whether all stays, as far as the database says, though the block of the application has raised an error.

        So do functions that are called after the commit, such as those of Django's on_commit().
        """
        if transaction is None or not transaction.is_saved:
            return False
        with suppress(BackendError):
            return self._status_of(transaction.number) == "committed"
        return False

    def _status_of(self, number: str | None) -> str:
        ((status,),) = self._database.fetch(queries.STATUS_OF_TRANSACTION, {"number": number})
        return status  # type: ignore[no-any-return]

    def _check_committed(self, name: str, number: str | None) -> None:
        """Raise TransactionError if the block was left, and all that was done in it has gone without a word.

        Whether it commits is asked of the first that is saved in each, for what it costs.
        """
        with suppress(BackendError):
            status = self._status_of(number)
            if status != "committed":
                raise TransactionError(
                    f"the block of transactions[{name!r}] was left without an error, and did not commit (its "
                    f"transaction is {status}): give one that does, such as Session.begin() or transaction.atomic()"
                )
            self._known_to_commit.add(name)


def _check_end(transaction: PostgresHandlerTransaction, name: str, nothing: _NothingToCommitError) -> None:
    """Raise what has the application's block roll back, unless it is to commit."""
    if not transaction.is_saved:
        raise nothing
    if transaction.is_cut_off:
        raise UnavailableError(f"the connection of {name!r} was lost before its transaction was committed")


def _check_begun(transaction: PostgresHandlerTransaction, name: str) -> None:
    if not transaction.is_open:
        raise TransactionError(
            f"what the block of transactions[{name!r}] gives is in no transaction, since it is autocommit: nothing "
            "that a handler does there could be rolled back"
        )


def _heed(error: Exception, name: str, transaction: PostgresHandlerTransaction | None) -> None:
    """Raise what an *error* of the application's block means, unless all is rolled back as it should be."""
    cause = driver_error_of(error)
    if transaction is not None and transaction.has_begun and not transaction.is_saved:
        logger.warning("the transaction %r was rolled back with an error: %s", name, cause or error)
        return
    if cause is not None:
        raise translated(cause) from cause
    if type(error).__name__ == "TimeoutError":  # a pool's, which has no connection to give
        raise UnavailableError(f"the transaction {name!r} could not be begun: {error}") from error
    when = "ended" if transaction is not None and transaction.has_begun else "begun"
    raise TransactionError(
        f"the transaction {name!r} could not be {when}: {type(error).__qualname__}: {error}"
    ) from error


def driver_error_of(error: BaseException) -> psycopg.Error | None:
    """Return what a driver has raised where *error* is, or tells of, that: SQLAlchemy and Django raise their own."""
    found: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if found is None or isinstance(found, psycopg.Error):
            return found
        if psycopg2.is_error(found):
            return psycopg2.twin_of(found)
        original = getattr(found, "orig", None)
        found = original if isinstance(original, BaseException) else found.__cause__
    return None
