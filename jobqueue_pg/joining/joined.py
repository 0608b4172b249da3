"""A connection whose transaction is joined, and what its framework has to be told."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from jobqueue_pg.errors import translate_errors
from jobqueue_pg.joining.port import Lent
from jobqueue_pg.queries.applications import BEGIN

# In the encodings of others not all can be spelled, which must show before a statement has begun.
_ENCODING_TO_COPY_IN: Final = "utf-8"
_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR, TransactionStatus.ACTIVE)

_T = TypeVar("_T")


class Joined:
    """The caller's *connection*: what is done on it is a part of the caller's transaction.

    *note_broken* is called with an error that has broken the transaction, so that who holds it knows.
    """

    __slots__ = ("_note_broken", "connection")

    def __init__(self, connection: Lent, note_broken: Callable[[BaseException], object] | None = None) -> None:
        self.connection: Final = connection
        self._note_broken = note_broken

    def perform(self, work: Callable[[Lent], _T], *, is_one_statement: bool) -> _T:
        """Do *work* as a whole, or not at all: so it is if it *is_one_statement*, and else by a savepoint.

        Raises:
            BackendError: it failed. After one statement, that has broken the transaction.
        """
        with translate_errors():
            try:
                if is_one_statement:
                    return work(self.connection)
                with self.block():
                    return work(self.connection)
            except psycopg.Error as error:
                if self._note_broken is not None and self.is_broken:
                    self._note_broken(error)
                raise

    def block(self) -> AbstractContextManager[object]:
        """Do what is done in the block as a whole, or not at all."""
        connection = self.connection
        return _block(connection) if isinstance(connection, psycopg.Connection) else connection.transaction()

    @property
    def is_broken(self) -> bool:
        """Whether a statement has failed in the open transaction, which can only be rolled back."""
        if isinstance(self.connection, psycopg.Connection):
            return self.connection.info.transaction_status == TransactionStatus.INERROR
        return self.connection.is_broken

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, broken or not."""
        if isinstance(self.connection, psycopg.Connection):
            return self.connection.info.transaction_status in _OPEN
        return self.connection.is_in_transaction

    @property
    def can_copy(self) -> bool:
        """Whether all text can be sent by COPY."""
        connection = self.connection
        if not isinstance(connection, psycopg.Connection):
            return connection.can_copy
        with translate_errors():
            info = connection.info
            return info.pipeline_status == PipelineStatus.OFF and info.encoding == _ENCODING_TO_COPY_IN


@contextmanager
def _block(connection: psycopg.Connection[Any]) -> Generator[None]:
    """Do what is done in the block as a whole, on an autocommit connection too."""
    if not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        # A block that finds no transaction begins one, and commits it: that is for the caller to do.
        connection.execute(BEGIN)
    with connection.transaction():
        yield
