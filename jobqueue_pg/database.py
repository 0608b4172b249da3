"""One schema of one database, reached through one pool: runs statements, and knows when to try again."""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, LiteralString, TypeVar

import attrs
from psycopg import Connection, RawCursor, sql
from psycopg.rows import tuple_row

from jobqueue.patience import seconds_to_connect
from jobqueue.threads import Backoff
from jobqueue_pg.errors import ROLLED_BACK, translate_errors
from jobqueue_pg.pool import Pool
from jobqueue_pg.rows import Row
from jobqueue_pg.sessions import READ_COMMITTED, Session

_TIMES_TO_TRY: Final = 4
_FIRST_PAUSE: Final = 0.02
_SECONDS_TO_CLOSE: Final = 1.0
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")

Parameters = Mapping[str, object]
_T = TypeVar("_T")


class Database:
    """Runs statements of jobqueue_pg.queries.

    *now* is for tests that move the database's clock: what it returns, unless None, takes the place of ``now()``.
    """

    def __init__(self, pool: Pool, schema: str, now: Callable[[], datetime | None]) -> None:
        self.pool = pool
        self.schema = schema
        self.now = now
        self._statements: dict[str, _Statement] = {}
        self._closing = threading.Event()

    def fetch(self, statement: LiteralString, parameters: Parameters) -> list[Row]:
        """Run one statement in a transaction of its own; return its rows."""
        return self._try(lambda connection: self.execute(connection, statement, parameters).fetchall())

    def change(self, statement: LiteralString, parameters: Parameters) -> int:
        """Run one statement that returns no rows in a transaction of its own; return how many it has changed."""
        return self._try(lambda connection: self.execute(connection, statement, parameters).rowcount)

    def transact(self, work: "Callable[[Connection[Any]], _T]", *, isolation: LiteralString = READ_COMMITTED) -> _T:
        """Do *work*, of several statements, in one transaction; return its result."""
        return self._try(work, isolation)

    def perform(self, work: "Callable[[Connection[Any]], _T]") -> _T:
        """Do *work*, which is one statement and not given as such, in a transaction of its own; return its result."""
        return self._try(work)

    def _try(self, work: "Callable[[Connection[Any]], _T]", isolation: LiteralString | None = None) -> _T:
        """Do *work*; again, after a short pause, up to three times when the server has rolled it back for no fault."""
        backoff: Backoff | None = None
        attempt = 1
        while True:
            try:
                return self._try_once(work, isolation)
            except Exception as error:
                if attempt == _TIMES_TO_TRY or not isinstance(error, ROLLED_BACK):
                    with translate_errors():
                        raise
            # Whoever was preferred has to take its locks first, or it meets us again.
            backoff = backoff or Backoff(_FIRST_PAUSE)
            self._closing.wait(backoff.next())
            attempt += 1

    def _try_once(self, work: "Callable[[Connection[Any]], _T]", isolation: LiteralString | None) -> _T:
        seconds = seconds_to_connect(self.pool.timeout)
        with self.pool.connection(seconds, isolation=isolation) as connection:
            return work(connection)

    def run(
        self, connection: "Connection[Any]", statement: LiteralString, parameters: Mapping[str, str | None]
    ) -> None:
        """Run one statement that is run very often, and whose rows nobody reads, on a *connection* of the pool."""
        if not (isinstance(connection, Session) and connection.prepares):
            self.execute(connection, statement, parameters)
            return
        ready = self._statement(statement)
        now = self.now()
        values = {"now": None if now is None else now.isoformat(), **parameters}
        connection.run_repeatedly(ready.text, [values[name] for name in ready.names])

    def execute(
        self, connection: "Connection[Any]", statement: LiteralString, parameters: Parameters
    ) -> "RawCursor[Row]":
        """Run one statement on *connection*, as a part of whatever transaction is open there; return its cursor."""
        ready = self._statement(statement)
        values = {"now": self.now(), **parameters}
        cursor = RawCursor(connection, row_factory=tuple_row)
        return cursor.execute(ready.text, [values[name] for name in ready.names])

    def copy(self, connection: "Connection[Any]", statement: LiteralString, blocks: Iterable[str]) -> None:
        """Run a COPY FROM STDIN of *blocks* on *connection*, as a part of whatever transaction is open there."""
        with RawCursor(connection, row_factory=tuple_row).copy(self._statement(statement).text) as copy:
            for block in blocks:
                copy.write(block)

    def close(self) -> None:
        """Give up the connections."""
        self._closing.set()
        self.pool.close(timeout=_SECONDS_TO_CLOSE)

    def _statement(self, statement: LiteralString) -> "_Statement":
        ready = self._statements.get(statement)
        if ready is None:
            ready = self._statements[statement] = _ready(statement, self.schema)
        return ready


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
