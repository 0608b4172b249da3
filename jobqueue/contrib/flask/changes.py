"""What calls of the queue have changed in a session, which is told of when nobody commits it."""

import logging
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, g, has_app_context

from jobqueue.contrib.flask.contexts import is_in_context_of
from jobqueue.queue_service import QueueService

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

logger = logging.getLogger(__name__)

_CHANGES: Final = "_jobqueue_changes"
_JOINED: Final = "_jobqueue_joined"


def note_joined() -> None:
    """Note that the call that goes on in this context is a part of its session."""
    setattr(g, _JOINED, True)


def note_changes(service: QueueService, app: Flask, db: "SQLAlchemy") -> None:
    """Have what calls of *service* change in a session of *db* noted, in the context of *app*."""

    def note(name: str, connection: object) -> None:
        if not is_in_context_of(app):
            return
        has_joined = g.pop(_JOINED, False) if connection is None else _is_session(db, connection)
        if has_joined:
            _changes().setdefault(db.session(), {})[name] = None

    service.watch_changes(note)


def _is_session(db: "SQLAlchemy", given: object) -> bool:
    return given is db.session or given is db.session()


def _changes() -> dict[Any, dict[str, None]]:
    """Return the names of the calls that have changed something in a session of this context, in their order."""
    changes: dict[Any, dict[str, None]] = g.setdefault(_CHANGES, {})
    return changes


def forget_changes(session: Any) -> None:
    """Those of *session* are committed, or meant to be gone."""
    if has_app_context() and not session.in_nested_transaction():
        _changes().pop(session, None)


def warn_of_uncommitted(error: BaseException | None) -> None:
    """Tell of what is undone with a context: nothing else would."""
    names = dict.fromkeys(name for of_session in _changes().values() for name in of_session)
    g.pop(_CHANGES)
    if names and error is None:
        calls = ", ".join(f"{name}()" for name in names)
        logger.warning(
            "what %s did in db.session is gone, since that was not committed: call db.session.commit() after %s, also "
            "where nothing else has changed",
            calls,
            calls,
        )
