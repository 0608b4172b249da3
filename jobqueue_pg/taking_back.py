"""Jobs that are made as good as new take their unique keys back, unless somebody else is faster."""

from collections.abc import Callable, Collection, Mapping
from typing import Final, LiteralString, TypeVar
from uuid import UUID

from psycopg.errors import LockNotAvailable, UniqueViolation

from jobqueue_pg.database import Database
from jobqueue_pg.joining import Lent
from jobqueue_pg.queries.uniqueness import LOCK_TIMEOUT, LOCK_TO_TAKE_KEYS_BACK, SET_LOCK_TIMEOUT
from jobqueue_pg.rows import Row
from jobqueue_pg.sessions import Session

_TIMES_TO_TAKE_KEYS_BACK: Final = 3

_T = TypeVar("_T")


class _KeyIsTakenError(Exception):
    """Somebody else has a key that is to be taken back, or has added a job with it and not ended the transaction."""


def taking_keys_back(act: Callable[[bool], _T]) -> _T:
    """Call ``act(takes_keys_back)`` until nobody takes a key that it takes back; at last without taking any."""
    for _ in range(_TIMES_TO_TAKE_KEYS_BACK):
        try:
            return act(True)  # noqa: FBT003 - it has a name where it is called
        except _KeyIsTakenError:
            continue
    return act(False)  # noqa: FBT003 - as above


def reset(
    database: Database,
    connection: Lent,
    ids: Collection[UUID],
    statement: LiteralString,
    parameters: Mapping[str, object],
) -> list[Row]:
    """Run *statement*, which makes the jobs *ids* as good as new, as the last of a transaction; return its rows.

    The jobs are locked first, for which is waited as long as usual, and not as briefly as for keys. On a connection
    that is not ours the transaction goes on, and waits as it did before.
    """
    if not parameters["takes_keys_back"]:
        return database.execute(connection, statement, parameters).fetchall()
    before = None if isinstance(connection, Session) else database.execute(connection, LOCK_TIMEOUT, {}).fetchall()
    database.execute(connection, LOCK_TO_TAKE_KEYS_BACK, {"ids": ids})
    try:
        changed = database.execute(connection, statement, parameters).fetchall()
    except (LockNotAvailable, UniqueViolation) as error:
        raise _KeyIsTakenError from error
    if before is not None:
        database.execute(connection, SET_LOCK_TIMEOUT, {"lock_timeout": before[0][0]})
    return changed
