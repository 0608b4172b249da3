"""One schema of one database, reached through one pool: runs statements, and knows when to try again."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import Connection, sql
from psycopg_pool import ConnectionPool

from jobqueue_pg.errors import ROLLED_BACK, translate_errors
from jobqueue_pg.rows import Row

_TIMES_TO_TRY: Final = 4

Parameters = Mapping[str, object]


class Database:
    """Runs statements of jobqueue_pg.queries.

    *now* is for tests that move the database's clock: what it returns, unless None, takes the place of ``now()``.
    """

    def __init__(self, pool: ConnectionPool, schema: str, now: Callable[[], datetime | None]) -> None:
        self.pool = pool
        self.schema = schema
        self.now = now
        self._statements: dict[str, bytes] = {}

    def fetch(self, statement: LiteralString, parameters: Parameters) -> list[Row]:
        """Run one statement in a transaction of its own; return its rows.

        When the server has rolled it back for the sake of another (a deadlock, a serialization failure), it is run
        again at once, up to three times.
        """
        with translate_errors():
            for _ in range(_TIMES_TO_TRY - 1):
                try:
                    return self._fetch_once(statement, parameters)
                except ROLLED_BACK:
                    continue
            return self._fetch_once(statement, parameters)

    def _fetch_once(self, statement: LiteralString, parameters: Parameters) -> list[Row]:
        with self.pool.connection() as connection:
            cursor = self.execute(connection, statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def execute(self, connection: "Connection[Any]", statement: LiteralString, parameters: Parameters) -> Any:
        """Run one statement on *connection*, as a part of whatever transaction is open there; return its cursor."""
        return connection.execute(self._with_schema(statement), {**parameters, "now": self.now()})

    @contextmanager
    def transaction(self) -> Generator["Connection[Any]"]:
        """Open a transaction for several statements."""
        with translate_errors(), self.pool.connection() as connection, connection.transaction():
            yield connection

    def close(self) -> None:
        """Give up the connections."""
        self.pool.close()

    def _with_schema(self, statement: LiteralString) -> bytes:
        complete = self._statements.get(statement)
        if complete is None:
            # All statements have parameters, so that the driver would take a % in the name for one.
            schema = sql.Identifier(self.schema.replace("%", "%%"))
            complete = sql.SQL(statement).format(schema=schema).as_bytes(None)
            self._statements[statement] = complete
        return complete
