"""The one place where errors of the driver become errors of jobqueue."""

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
import psycopg_pool
from psycopg import errors

from jobqueue.errors import BackendError, ClosedError, LockTimeoutError, RefusedError, SchemaError, UnavailableError

# SQLSTATE classes that may go away by themselves: connection, resources, operator intervention, rollback.
# Source: PostgreSQL manual, appendix A.
_PASSING = ("08", "53", "57P", "40")

_TOOK_TOO_LONG = (errors.LockNotAvailable, errors.QueryCanceled)
_NOT_OUR_SCHEMA = (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName)

ROLLED_BACK = (errors.DeadlockDetected, errors.SerializationFailure)
"""Errors after which the same statement may be tried again at once."""


@contextmanager
def translate_errors() -> Generator[None]:
    """Raise what the driver raises as a BackendError, with the driver's error as its cause."""
    try:
        yield
    except psycopg.Error as error:
        raise _translated(error) from error
    except UnicodeEncodeError as error:
        # The driver spells text in the connection's encoding, which may be narrower than UTF-8.
        raise RefusedError(f"the connection's encoding cannot spell a value: {error}") from error


def _translated(error: psycopg.Error) -> Exception:
    if isinstance(error, psycopg_pool.PoolClosed):
        return ClosedError("the service was closed")
    reason = str(error).strip() or type(error).__qualname__
    if isinstance(error, _TOOK_TOO_LONG):
        return LockTimeoutError(f"another transaction held a needed row for too long: {reason}")
    if isinstance(error, _NOT_OUR_SCHEMA):
        return SchemaError(f"the queue's tables are not what this version needs ({reason}): run `jobqueue migrate`")
    if _is_passing(error):
        return UnavailableError(f"the database is not available: {reason}")
    if isinstance(error, errors.InsufficientPrivilege):
        return BackendError(f"the database user may not do this: {reason}")
    return RefusedError(f"the database refused: {reason}")


def _is_passing(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        # Raised by the driver or the pool itself: a lost or unobtainable connection, unless a value could not be sent.
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_PASSING) or isinstance(error, errors.ReadOnlySqlTransaction)
