"""What goes on in the tables of one schema, and how their server is reached."""

import time
from datetime import timedelta
from typing import Final

from jobqueue.inspecting import Activity, ConnectionCheck, SeenWorker
from jobqueue_pg.database import Database
from jobqueue_pg.joining import Lent
from jobqueue_pg.queries import inspecting as queries
from jobqueue_pg.sessions import Session

_WINDOW: Final = timedelta(minutes=1)
_MOST_CLAIMS: Final = 5_000
_GONE_AFTER: Final = timedelta(minutes=10)


class PostgresInspecting:
    """The Inspecting on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent_activity(self) -> Activity:
        """Say what has become of the jobs that were claimed last, and by whom."""
        found = self._database.fetch(queries.FIND_ACTIVITY, {"window": _WINDOW, "most": _MOST_CLAIMS})
        workers = [
            SeenWorker(name=name, num_running=running, silent_for=timedelta(seconds=silent))
            for name, running, _, _, silent, _ in found
            if name is not None
        ]
        return Activity(
            num_stopped=sum(row[2] for row in found),
            num_failed=sum(row[3] for row in found),
            within=timedelta(seconds=found[0][5]) if found else _WINDOW,
            workers=tuple(worker for worker in workers if worker.num_running or worker.silent_for <= _GONE_AFTER),
        )

    def check_connection(self) -> ConnectionCheck:
        """Ask the server for its version, and take the time of a statement that does nothing."""
        return self._database.perform(self._check)

    def _check(self, connection: Lent) -> ConnectionCheck:
        [(version, is_read_only)] = self._database.execute(connection, queries.CHECK_CONNECTION, {}).fetchall()
        began = time.monotonic()
        self._database.execute(connection, queries.DO_NOTHING, {})
        return ConnectionCheck(
            backend="PostgreSQL",
            server_version=version,
            is_read_only=is_read_only,
            is_pooled=isinstance(connection, Session) and connection.is_lent,
            round_trip=timedelta(seconds=time.monotonic() - began),
        )
