"""A connection of a pool for the length of a block, and what becomes of it at the end."""

import time
from types import TracebackType
from typing import Final, LiteralString, Protocol

from psycopg import errors
from psycopg.pq import TransactionStatus

from jobqueue_pg.errors import is_stale_plan
from jobqueue_pg.sessions import Session, Sessions

_SECONDS_BETWEEN_HOSTS: Final = 2.0
_NOTHING_OPEN: Final = (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)


class Lender(Protocol):
    """Whoever has connections to lend."""

    def getconn(self, timeout: float | None = None) -> Session:
        """Give out a connection."""
        ...

    def putconn(self, conn: Session) -> None:
        """Take it back."""
        ...


class Loan:
    """A context manager that lends a connection: committed at the end of the block, or rolled back, or discarded.

    With *isolation* the block is one transaction of that kind; without, it is one where sessions are a pooler's.

    A class, and one for all that belongs to it: every statement comes this way, and the same in context managers made
    of generators, one within the other, costs three times as much.
    """

    __slots__ = ("_begun", "_isolation", "_lender", "_session", "_sessions", "_timeout")

    def __init__(
        self, lender: Lender, sessions: Sessions, timeout: float | None, isolation: LiteralString | None
    ) -> None:
        self._lender = lender
        self._sessions = sessions
        self._timeout = timeout
        self._isolation: LiteralString | None = isolation

    def __enter__(self) -> Session:
        session = self._session = self._lender.getconn(self._timeout)
        try:
            self._begun = self._sessions.begin(session, self._isolation)
        except BaseException as error:
            self._give_back_after(error)
            raise
        return session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_back_after(error)
            return
        try:
            self._commit()
        except BaseException as failure:
            self._give_back_after(failure)
            raise
        self._lender.putconn(self._session)

    def _commit(self) -> None:
        # Not left to the driver, which says nothing when a lost connection cannot commit.
        if self._begun or self._session.pgconn.transaction_status not in _NOTHING_OPEN:
            self._session.commit()

    def _give_back_after(self, error: BaseException) -> None:
        """Give the connection back: rolled back, or discarded if *error* says so. Raises what the error means."""
        session = self._session
        try:
            meant = self._sessions.heed(error, session)
            if _is_about_the_session(meant, session):
                session.discard()
            session.__exit__(type(error), error, None)  # which rolls back, and is silent when that cannot be done
        finally:
            self._lender.putconn(session)
        if meant is not error:
            raise meant from error


def _is_about_the_session(error: BaseException, session: Session) -> bool:
    """Return whether *error* may not come in another session."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        # Another host of the conninfo, or of the name, may take writes; but this one may be all there is.
        return time.monotonic() - session.opened_at > _SECONDS_BETWEEN_HOSTS
    return isinstance(error, errors.FeatureNotSupported) and is_stale_plan(error)
