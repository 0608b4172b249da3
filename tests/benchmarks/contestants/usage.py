"""What a work has used of the database: WAL, commits, HOT updates, connections.

Sessions tell of their commits and updates when they end, and the latest; who looks on does so from another database, or
in one transaction that lasts, so as not to count itself.
"""

import threading
import time
from typing import Any, Final, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

WATCHER: Final = "jobqueue-bench"
"""The application_name of sessions that only look on."""

_LOOK_EVERY: Final = 0.1
_LONGEST_END: Final = 10.0
_WAL: Final = "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
_CONNECTIONS: Final = """
select count(*) from pg_stat_activity
where datname = %s and application_name <> %s and backend_type = 'client backend'
"""
_COMMITS: Final = "select xact_commit from pg_stat_database where datname = %s"
_UPDATES: Final = """
select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where schemaname = 'worker' and relname = 'job'
"""


class Usage:
    """What is used from the moment on at which this is made."""

    def __init__(self, dsn: str) -> None:
        self._watched = make_conninfo(dsn, application_name=WATCHER)
        self._database = conninfo_to_dict(dsn)["dbname"]
        self._outside = psycopg.connect(make_conninfo(self._watched, dbname="postgres"), autocommit=True)
        self._most_connections = 0
        self._ending = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._commits, self._wal = self._one(_COMMITS, self._database), self._one(_WAL)
        self._sampler.start()

    def until_now(self) -> dict[str, int]:
        """Return what can be told while the work's sessions are still open."""
        self._ending.set()
        self._sampler.join()
        return {
            "wal_bytes": int(self._one(_WAL) - self._wal),
            "connections": self._most_connections,
            "commits_so_far": self._one(_COMMITS, self._database) - self._commits,
        }

    def after_the_end(self) -> dict[str, int]:
        """Return what sessions tell of when they end, which those of the work are about to do."""
        never, deadline = threading.Event(), time.monotonic() + _LONGEST_END
        while self._connections() and time.monotonic() < deadline:
            never.wait(_LOOK_EVERY)
        commits = self._one(_COMMITS, self._database) - self._commits
        self._outside.close()
        with psycopg.connect(self._watched) as inside:
            [(updates, hot_updates)] = inside.execute(_UPDATES).fetchall()
        return {"commits": commits, "updates": updates, "hot_updates": hot_updates}

    def _sample(self) -> None:
        while not self._ending.wait(_LOOK_EVERY):
            self._most_connections = max(self._most_connections, self._connections())

    def _connections(self) -> int:
        return int(self._one(_CONNECTIONS, self._database, WATCHER))

    def _one(self, statement: LiteralString, *parameters: object) -> Any:
        [(value,)] = self._outside.execute(statement, parameters).fetchall()
        return value
