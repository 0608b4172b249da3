"""Whose session a connection has: its own from beginning to end, or one of a pooler's, lent for a transaction."""

import logging
import threading
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final, LiteralString
from uuid import uuid4

import psycopg
from psycopg import errors, sql
from psycopg.generators import execute

from jobqueue_pg.connection import BoundedConnection

logger = logging.getLogger(__name__)

READ_COMMITTED: Final = "read committed"

# A statement that was prepared in one session, and is run in another.
# Source: PostgreSQL manual, appendix A: 26000, 42P05.
_NOT_PREPARED_THERE: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)
_SET: Final = sql.SQL("pg_catalog.set_config({}, {}, {})")
_FIRST_VERSIONS: Final[Mapping[str, int]] = {"transaction_timeout": 170000}
_USUAL_THRESHOLD: Final = 5  # psycopg's
_UTF8: Final = "utf-8"

# What `discard all` does, except for what is prepared; the role may be one that the database's owner has set.
_RESETTING: Final = (
    b"close all",
    b"reset session authorization",
    b"reset role",
    b"reset all",
    b"unlisten *",
    b"discard temp",
    b"discard sequences",
    b"select pg_catalog.pg_advisory_unlock_all()",
)
_IS_ANYTHING_LEFT: Final = b"select exists (select from pg_catalog.pg_prepared_statements where from_sql)"
# What whoever uses a connection may change on it.
_ATTRIBUTES: Final = (
    "row_factory",
    "cursor_factory",
    "server_cursor_factory",
    "prepared_max",
    "autocommit",
    "isolation_level",
    "read_only",
    "deferrable",
)
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
    channel = _name_of_nobody_else()
    with closing(psycopg.connect(conninfo, autocommit=True)) as listening:
        listening.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        connection.execute("select pg_catalog.pg_notify(%s, '')", [channel], prepare=False)
        return any(True for _ in listening.notifies(timeout=_SECONDS_TO_HEAR, stop_after=1))


def _name_of_nobody_else() -> str:
    return f"jobqueue.probe.{uuid4().hex}"


class Session(BoundedConnection):
    """A connection, and whose session it has."""

    is_lent: bool = False
    """Whether the next transaction may be in another session, which others have used meanwhile, and will again."""

    local_settings: bytes = b""
    """What a transaction begins with to have the settings of its pool, where the session itself cannot keep them."""

    speaks_utf8: bool = False
    """Whether any text can be sent."""

    own_reset: bytes = b""
    """What makes the session as it was when it was set up, where it is the connection's own."""

    @property
    def prepares(self) -> bool:
        """Whether a statement may be prepared, and be sent without the driver's adapting it."""
        return self.prepare_threshold is not None and self.speaks_utf8 and not self.is_lent

    def note_attributes(self) -> None:
        """Note how the connection is, as Python sees it."""
        self._attributes = [(name, getattr(self, name)) for name in _ATTRIBUTES]

    def restore_attributes(self) -> None:
        """Have it be as it was when that was noted; no transaction may be open."""
        for name, value in self._attributes:
            if getattr(self, name) is not value:
                setattr(self, name, value)
        self._adapters = None
        self._notice_handlers.clear()
        self.listen_for_last_words()
        self._notify_handlers.clear()


class Sessions:
    """What the sessions of a pool are like: their transactions have *settings*, and leave no other session changed.

    Where a session is the connection's own, it is set up once. Where a pooler lends it, each use is one transaction,
    which begins with the settings that are good for it alone, and nothing is prepared unless *prepares* says that the
    pooler keeps track of that, and it does. *prepares* None: only in sessions of one's own; False: nowhere.
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
            if self._prepares and _passes_names_on(session):
                self._stop_preparing("the pooler before the database keeps no track of prepared statements")
        else:
            own_settings = self._setting(session, is_local=False)
            session.execute(own_settings, prepare=False)
            session.own_reset = b"; ".join([*_RESETTING, own_settings, _IS_ANYTHING_LEFT])
        session.speaks_utf8 = session.info.encoding == _UTF8
        session.note_attributes()

    def _setting(self, session: Session, *, is_local: bool) -> bytes:
        version = session.info.server_version
        known = [item for item in self._settings.items() if version >= _FIRST_VERSIONS.get(item[0], 0)]
        parts = [_SET.format(*map(sql.Literal, (name, value, is_local))) for name, value in known]
        return sql.SQL("select {}").format(sql.SQL(", ").join(parts)).as_bytes(session)

    def begin(self, session: Session, isolation: LiteralString | None = None) -> bool:
        """Have *session* ready for use, in a transaction if *isolation* says what it is like, or if it has to be.

        Return whether it is in a transaction, which the user of the session has to end.
        """
        session.prepare_threshold = self._threshold(session)
        if not session.is_lent and isolation is None:
            return False
        begin = f"begin isolation level {isolation or READ_COMMITTED}; ".encode()
        session.execute(begin + session.local_settings, prepare=False)
        return True

    def heed(self, error: BaseException, session: Session) -> BaseException:
        """Discard *session* if *error*, which came of its use, says that it has other statements prepared than ours.

        Return the error, or what it means.
        """
        if _is_of_another_statement(error):
            error = errors.InvalidSqlStatementName(str(error))
        if isinstance(error, _NOT_PREPARED_THERE):
            self._stop_preparing(f"statements that were prepared are not there (SQLSTATE {error.sqlstate})")
            session.discard()
        return error

    def clean(self, session: Session) -> None:
        """Make *session* as good as new for whoever uses it next; discard it if that cannot be done.

        What was done to a pooler's session is for the pooler to undo.
        """
        try:
            is_clean = not session.closed and _cleaned(session)
        except psycopg.Error as error:
            logger.debug("a session is not used again, as it cannot be cleaned: %s", error)
            is_clean = False
        except BaseException:
            session.discard()
            raise
        if not is_clean:
            session.discard()

    def _threshold(self, session: Session) -> int | None:
        prepares = not session.is_lent if self._prepares is None else self._prepares
        return self._prepare_threshold if prepares else None

    def _stop_preparing(self, reason: str) -> None:
        with self._lock:
            fresh, self._prepares = self._prepares is not False, False
        if fresh:
            logger.warning("%s: none is prepared any more", reason)


def _cleaned(session: Session) -> bool:
    """Undo what the user of *session* has left behind; return whether that is all of it."""
    session.restore_attributes()
    if session.is_lent:
        return True
    answers = session.execute(session.own_reset, prepare=False)
    while answers.nextset():
        pass
    return answers.fetchone() == (False,)


def _passes_names_on(session: Session) -> bool:
    """Return whether a pooler gives statements the names that its clients say, in sessions that they share.

    Each driver counts from 0, so that one client would run what another has prepared. Poolers that keep track of
    prepared statements make up names of their own.
    """
    name = _name_of_nobody_else()
    with session.transaction():
        # Not by the driver: it would remember to tidy up, and take the statements of others away with its own.
        session.pgconn.send_prepare(name.encode(), b"select")
        session.wait(execute(session.pgconn))
        look = "select from pg_catalog.pg_prepared_statements where name = %s"
        is_there = session.execute(look, [name], prepare=False).fetchone() is not None
        if is_there:
            session.execute(sql.SQL("deallocate {}").format(sql.Identifier(name)), prepare=False)
    return is_there


def _is_of_another_statement(error: BaseException) -> bool:
    """Return whether the statement that was to be run is another's, as the number of its parameters has shown.

    Nothing has run then. Of other breaches of the protocol nobody knows that; poolers call troubles of theirs so.
    """
    return isinstance(error, errors.ProtocolViolation) and error.diag.source_function == "exec_bind_message"
