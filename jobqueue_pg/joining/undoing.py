"""Blocks of other people's code in the caller's transaction, which are undone when they leave it broken."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import attrs
import psycopg

from jobqueue_pg.joining import django
from jobqueue_pg.joining.joined import Joined
from jobqueue_pg.joining.kinds import joined


@attrs.define
class Undoable:
    """What is done in a block, and whether it is to stay."""

    stays: bool = True


class _UndoneError(Exception):
    """Leaves a block, so that it is rolled back."""


def settled(given: object) -> Any:
    """Return what *given* stands for in this thread, at this moment: an alias, or a proxy. Raises as ``joined``."""
    joined(given)
    return django.wrapper_of(given) or _session_of(given) or given


def drivers_own(given: object) -> Any:
    """Return the driver's own connection behind *given*."""
    connection = joined(given).connection
    return connection if isinstance(connection, psycopg.Connection) else connection.original


@contextmanager
def undoable(given: object) -> Generator[Undoable]:
    """Have what is done in the block stay, unless it says that it does not, or has left the transaction broken.

    *given* is settled, and its framework knows of the block as far as it has to.
    """
    done = Undoable()
    callers, session = joined(given), _session_of(given)
    block = (
        _block_of_driver(callers, done, django.wrapper_of(given))
        if session is None
        else _block_of_session(session, callers, done)
    )
    with block:
        yield done


@contextmanager
def _block_of_driver(callers: Joined, done: Undoable, wrapper: Any | None) -> Generator[None]:
    callbacks = 0 if wrapper is None else len(wrapper.run_on_commit)
    try:
        with callers.block():
            yield
            _leave(undone=callers.is_broken or (wrapper is not None and wrapper.needs_rollback) or not done.stays)
    except BaseException as error:
        if wrapper is not None:
            del wrapper.run_on_commit[callbacks:]
        if not isinstance(error, _UndoneError):
            raise
    finally:
        if wrapper is not None:
            django.note_undone(wrapper)


def _leave(*, undone: bool) -> None:
    if undone:
        raise _UndoneError


@contextmanager
def _block_of_session(session: Any, callers: Joined, done: Undoable) -> Generator[None]:
    """Use a savepoint of the session's: it forgets what it has flushed there when that is undone."""
    nested = session.begin_nested()
    try:
        yield
    except BaseException:
        done.stays = False
        raise
    finally:
        if session.get_nested_transaction() is nested:
            stays = done.stays and nested.is_active and not callers.is_broken
            (nested.commit if stays else nested.rollback)()
        elif not session.is_active or callers.is_broken:
            # The block has committed, or rolled back, the session's transaction, and then broken the next one.
            session.rollback()


def _session_of(given: object) -> Any | None:
    """Return the session of SQLAlchemy that *given* is, or stands for."""
    if "sqlalchemy.orm" not in sys.modules:
        return None
    orm = import_module("sqlalchemy.orm")
    found: Any = given
    if isinstance(found, orm.scoped_session):
        found = found()
    return found if isinstance(found, orm.Session) else None
