"""Whose session a connection has: its own from beginning to end, or one of a pooler's, lent for a transaction."""

import logging
import threading
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final, LiteralString
from uuid import uuid4

import psycopg
from psycopg import errors, sql

from jobqueue_pg.connection import BoundedConnection

logger = logging.getLogger(__name__)

READ_COMMITTED: Final = "read committed"

# A statement that was prepared in one session, and is run in another.
# Source: PostgreSQL manual, appendix A: 26000, 42P05.
_NOT_PREPARED_THERE: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)
_SET: Final = sql.SQL("pg_catalog.set_config({}, {}, {})")
_FIRST_VERSIONS: Final[Mapping[str, int]] = {"transaction_timeout": 170000}
_USUAL_THRESHOLD: Final = 5  # psycopg's
_SECONDS_TO_HEAR: Final = 3.0


def is_lent(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a pooler stands between *connection*, which is autocommit, and the server.

    A server tells its process id when a session begins, and when it is asked. Poolers make up the former, by which
    they know whose statement is to be cancelled, and cannot change the latter.
    """
    row = connection.execute("select pg_catalog.pg_backend_pid()", prepare=False).fetchone()
    return row != (connection.info.backend_pid,)


def hears(conninfo: str, connection: psycopg.Connection[Any]) -> bool:
    """Return whether a connection to *conninfo* hears what is notified on *connection*, which is autocommit.

    It does not where a pooler lends sessions for a transaction, nor where another database is at its other end.
    """
    # Nobody else ever notifies on it: it may stay listened to, in a session that the pooler lends to others.
    channel = f"jobqueue.probe.{uuid4().hex}"
    with closing(psycopg.connect(conninfo, autocommit=True)) as listening:
        listening.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        connection.execute("select pg_catalog.pg_notify(%s, '')", [channel], prepare=False)
        return any(True for _ in listening.notifies(timeout=_SECONDS_TO_HEAR, stop_after=1))


class Session(BoundedConnection):
    """A connection, and whose session it has."""

    is_lent: bool = False
    """Whether the next transaction may be in another session, which others have used meanwhile, and will again."""

    local_settings: bytes = b""
    """What a transaction begins with to have the settings of its pool, where the session itself cannot keep them."""


class Sessions:
    """What the sessions of a pool are like: their transactions have *settings*, and leave no other session changed.

    Where a session is the connection's own, it is set up once. Where a pooler lends it, each use is one transaction,
    which begins with the settings that are good for it alone, and nothing is prepared unless *prepares* says that the
    pooler keeps track of that. *prepares* None: find out; False: prepare nothing, anywhere.
    """

    def __init__(
        self, settings: Mapping[str, str], *, prepares: bool | None = None, prepare_threshold: int = _USUAL_THRESHOLD
    ) -> None:
        self._settings = settings
        self._prepares = prepares
        self._prepare_threshold = prepare_threshold
        self._lock = threading.Lock()

    def set_up(self, session: Session) -> None:
        """Make *session*, which is new, ready for use."""
        session.is_lent = is_lent(session)
        if session.is_lent:
            session.local_settings = self._setting(session, is_local=True)
        else:
            session.execute(self._setting(session, is_local=False), prepare=False)

    def _setting(self, session: Session, *, is_local: bool) -> bytes:
        version = session.info.server_version
        known = [item for item in self._settings.items() if version >= _FIRST_VERSIONS.get(item[0], 0)]
        parts = [_SET.format(*map(sql.Literal, (name, value, is_local))) for name, value in known]
        return sql.SQL("select {}").format(sql.SQL(", ").join(parts)).as_bytes(session)

    @contextmanager
    def in_use(self, session: Session, isolation: LiteralString | None = None) -> Generator[None]:
        """Have the block use *session*, in a transaction if *isolation* says what it is like, or if it has to be.

        The transaction is committed at the end of the block; if that raises, whoever has the connection rolls back.
        """
        session.prepare_threshold = self._threshold(session)
        begins = session.is_lent or isolation is not None
        if begins:
            begin = f"begin isolation level {isolation or READ_COMMITTED}; ".encode()
            session.execute(begin + session.local_settings, prepare=False)
        try:
            yield
        except _NOT_PREPARED_THERE as error:
            self._stop_preparing(error)
            session.discard()
            raise
        if begins:
            # Not left to the driver, which says nothing when a lost connection cannot commit.
            session.commit()

    def _threshold(self, session: Session) -> int | None:
        prepares = not session.is_lent if self._prepares is None else self._prepares
        return self._prepare_threshold if prepares else None

    def _stop_preparing(self, error: psycopg.Error) -> None:
        with self._lock:
            fresh, self._prepares = self._prepares is not False, False
        if fresh:
            logger.warning(
                "statements that were prepared are not there (SQLSTATE %s), as behind a pooler that lends sessions: "
                "none is prepared any more",
                error.sqlstate,
            )
