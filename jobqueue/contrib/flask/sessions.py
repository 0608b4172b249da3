"""Flask-SQLAlchemy's session, and the jobs that are added in its transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, g, has_app_context

from jobqueue.contrib.flask.changes import forget_changes, note_changes, note_joined, warn_of_uncommitted
from jobqueue.contrib.flask.contexts import context_of, is_in_context_of, is_of_run
from jobqueue.contrib.flask.database import check_same_server
from jobqueue.errors import TransactionError
from jobqueue.queue_service import QueueService

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

SESSION: Final = "session"
"""What handlers write that are to run in a transaction of the session: ``atomic="session"``."""

_REFUSES_COMMITS: Final = "_jobqueue_refuses_commits"


class Sessions:
    """The sessions that *db* has in the contexts of *app*: calls of the queue that are made there join them."""

    def __init__(self, app: Flask, db: "SQLAlchemy", conninfo: str) -> None:
        self._app = app
        self._db = db
        self._conninfo = conninfo
        self._leads_to_queue = False
        for name in ("after_commit", "after_rollback"):
            _events().listen(db.session, name, forget_changes)
        _events().listen(db.session, "before_commit", self._refuse_commit_of_run)
        app.teardown_appcontext(warn_of_uncommitted)

    def joined(self) -> object | None:
        """Return the session of this context; None outside of any, and in runs that do not commit one by themselves."""
        if not is_in_context_of(self._app) or is_of_run():
            return None
        self._check()
        note_joined()
        return self._db.session

    def note_changes(self, service: QueueService) -> None:
        """Have it told of what *service* changes in a session that is not committed."""
        note_changes(service, self._app, self._db)

    def _check(self) -> None:
        """Look once where the session leads. Raises ConfigurationError."""
        if not self._leads_to_queue:
            self._leads_to_queue = check_same_server(self._conninfo, self._db.session)

    @contextmanager
    def transaction(self) -> Generator[object]:
        """Open a context, and a transaction of its session for an atomic handler; commit it at the end of the block.

        Within the block, the session of the context refuses to commit, and the one after a ``db.session.remove()``,
        too: what was done there would be committed without the completion. Independent sessions may.
        """
        with context_of(self._app):
            session = self._db.session()
            self._check()
            try:
                with _refusing_commits(session):
                    yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise

    def _refuse_commit_of_run(self, session: Any) -> None:
        of_run = g.get(_REFUSES_COMMITS) if has_app_context() else None
        if of_run is None or session.in_nested_transaction():
            return
        if session is of_run or session is self._db.session():
            raise TransactionError(
                f'a handler with atomic="{SESSION}" does not commit: its transaction is committed together with the '
                "completion of its job; flush() the session instead, or make the handler a plain one"
            )


@contextmanager
def _refusing_commits(session: Any) -> Generator[None]:
    setattr(g, _REFUSES_COMMITS, session)
    try:
        yield
    finally:
        g.pop(_REFUSES_COMMITS, None)


def _events() -> Any:
    """Return ``sqlalchemy.event``, which is there where there is a session."""
    return import_module("sqlalchemy.event")
