"""The one place where errors of the driver become errors of jobqueue."""

from types import TracebackType
from typing import Final

import psycopg
import psycopg_pool
from psycopg import errors

from jobqueue.errors import (
    BackendError,
    ClosedError,
    JobQueueError,
    LockTimeoutError,
    RefusedError,
    SchemaError,
    UnavailableError,
)

# SQLSTATEs, and classes of them, that may go away by themselves: connection, resources, operator intervention, the
# server's own files, rollback. Source: PostgreSQL manual, appendix A.
_PASSING = ("08", "53", "57P", "58", "40")
# What ends a session, or has spoilt it: the next one is another.
_SESSION_OVER = (
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.InvalidSqlStatementName,
    errors.DuplicatePreparedStatement,
)
_TRANSACTION_TIMEOUT = "25P04"  # from PostgreSQL 17 on
# Where the server works on files. A quota, or a limit on their size, is an internal error to it.
_SOURCES_OF_FILE_ERRORS = frozenset({"md.c", "fd.c", "bufmgr.c", "buffile.c", "slru.c", "xlog.c"})

_TOOK_TOO_LONG = (errors.LockNotAvailable, errors.QueryCanceled)
_NOT_OUR_SCHEMA = (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName)

ROLLED_BACK = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    # Once they have come, nothing is prepared any more: see jobqueue_pg.sessions.
    errors.InvalidSqlStatementName,
    errors.DuplicatePreparedStatement,
    # The server has ended the session because nothing was asked of it: what it was asked at that moment was not begun.
    errors.IdleSessionTimeout,
)
"""Errors after which the same statement may be tried again soon."""


class _TranslatedErrors:
    """A class, since every joined statement comes this way: made of a generator, it costs five times as much."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, psycopg.Error):
            raise translated(error) from error
        if isinstance(error, UnicodeEncodeError):
            # The driver spells text in the connection's encoding, which may be narrower than UTF-8.
            raise RefusedError(f"the connection's encoding cannot spell a value: {error}") from error


_translated_errors: Final = _TranslatedErrors()


def translate_errors() -> _TranslatedErrors:
    """Raise what the driver raises as a BackendError, with the driver's error as its cause."""
    return _translated_errors


def _keep_values_back(error: psycopg.Error) -> None:
    """Take from what *error* says the details, which quote rows and payloads; they are still in its ``diag``."""
    if error.diag.message_primary:
        error.args = (error.diag.message_primary,)


def translated(error: psycopg.Error) -> JobQueueError:
    """Return what the driver's *error* is to those who do not know the driver."""
    _keep_values_back(error)
    if isinstance(error, psycopg_pool.PoolClosed):
        return ClosedError("the service was closed")
    reason = " ".join(str(error).split()) or type(error).__qualname__
    if isinstance(error, _TOOK_TOO_LONG):
        return LockTimeoutError(f"this took too long, or another transaction held a needed row: {reason}")
    if isinstance(error, _NOT_OUR_SCHEMA):
        return SchemaError(f"the queue's tables are not what this version needs ({reason}): run `jobqueue migrate`")
    if _is_passing(error):
        return UnavailableError(f"the database is not available: {reason}")
    if isinstance(error, errors.InsufficientPrivilege):
        return BackendError(
            f"the database user may not do this: {reason}. Which rights a user needs for what: docs/security.md, and "
            "migrations/grant_roles.sql, which grants them"
        )
    return RefusedError(f"the database refused: {reason}")


def _is_passing(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        # Raised by the driver or the pool itself: a lost or unobtainable connection, unless a value could not be sent.
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if isinstance(error, errors.InternalError_):
        return error.diag.source_file in _SOURCES_OF_FILE_ERRORS
    return (
        error.sqlstate.startswith(_PASSING)
        or error.sqlstate == _TRANSACTION_TIMEOUT
        or isinstance(error, _SESSION_OVER)
        or is_stale_plan(error)
    )


def is_stale_plan(error: psycopg.Error) -> bool:
    """Return whether a statement was prepared for a table that was altered since: in another session it will run.

    What else is not supported, or said to be so by a trigger of the application, never will.
    """
    return isinstance(error, errors.FeatureNotSupported) and error.diag.source_function == "RevalidateCachedQuery"
