"""One schema of one database, reached through one pool: runs statements, and knows when to try again."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, LiteralString, TypeVar

import attrs
from psycopg import Connection, RawCursor, sql
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

from jobqueue.patience import seconds_to_connect
from jobqueue_pg.errors import ROLLED_BACK, translate_errors
from jobqueue_pg.rows import Row

_TIMES_TO_TRY: Final = 4
_SECONDS_TO_CLOSE: Final = 1.0
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")

Parameters = Mapping[str, object]
_T = TypeVar("_T")


class Database:
    """Runs statements of jobqueue_pg.queries.

    *now* is for tests that move the database's clock: what it returns, unless None, takes the place of ``now()``.
    """

    def __init__(self, pool: ConnectionPool, schema: str, now: Callable[[], datetime | None]) -> None:
        self.pool = pool
        self.schema = schema
        self.now = now
        self._statements: dict[str, _Statement] = {}

    def fetch(self, statement: LiteralString, parameters: Parameters) -> list[Row]:
        """Run one statement in a transaction of its own; return its rows."""
        return self._run(statement, parameters, lambda cursor: cursor.fetchall())

    def change(self, statement: LiteralString, parameters: Parameters) -> int:
        """Run one statement that returns no rows in a transaction of its own; return how many it has changed."""
        return self._run(statement, parameters, lambda cursor: cursor.rowcount)

    def transact(self, work: "Callable[[Connection[Any]], _T]") -> _T:
        """Do *work*, of several statements, in one transaction; return its result."""

        def in_transaction(connection: "Connection[Any]") -> _T:
            with connection.transaction():
                return work(connection)

        return self._try(in_transaction)

    def _run(self, statement: LiteralString, parameters: Parameters, read: "Callable[[RawCursor[Row]], _T]") -> _T:
        return self._try(lambda connection: read(self.execute(connection, statement, parameters)))

    def _try(self, work: "Callable[[Connection[Any]], _T]") -> _T:
        """Do *work*; again, up to three times, when the server has rolled it back for the sake of another."""
        with translate_errors():
            for _ in range(_TIMES_TO_TRY - 1):
                try:
                    return self._try_once(work)
                except ROLLED_BACK:
                    continue
            return self._try_once(work)

    def _try_once(self, work: "Callable[[Connection[Any]], _T]") -> _T:
        with self.pool.connection(timeout=seconds_to_connect(self.pool.timeout)) as connection:
            return work(connection)

    def execute(
        self, connection: "Connection[Any]", statement: LiteralString, parameters: Parameters
    ) -> "RawCursor[Row]":
        """Run one statement on *connection*, as a part of whatever transaction is open there; return its cursor."""
        ready = self._statements.get(statement)
        if ready is None:
            ready = self._statements[statement] = _ready(statement, self.schema)
        values = {**parameters, "now": self.now()}
        cursor = RawCursor(connection, row_factory=tuple_row)
        return cursor.execute(ready.text, [values[name] for name in ready.names])

    def close(self) -> None:
        """Give up the connections."""
        self.pool.close(timeout=_SECONDS_TO_CLOSE)


@attrs.frozen
class _Statement:
    """A statement as the server takes it: its parameters are numbered."""

    text: bytes
    names: tuple[str, ...]


def _ready(statement: LiteralString, schema: str) -> _Statement:
    """Put the schema's name in, and numbers in place of the parameters' names.

    The driver would do the latter itself, but keeps the result only of texts of up to 4 kB, and a trip is longer: half
    a millisecond each time.
    """
    names = tuple(dict.fromkeys(_PARAMETER.findall(statement)))
    numbers = {name: f"${number}" for number, name in enumerate(names, start=1)}
    numbered = _PARAMETER.sub(lambda found: numbers[found[1]], statement).replace("%%", "%")
    template = sql.SQL(numbered)  # pyright: ignore[reportArgumentType] - still what the literal says
    return _Statement(template.format(schema=sql.Identifier(schema)).as_bytes(None), names)
