"""One schema of one database, reached through one pool: runs statements, and knows when to try again."""

import re
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Final, LiteralString, TypeVar

import attrs
from psycopg import Connection, RawCursor, sql
from psycopg.rows import tuple_row

from jobqueue.patience import seconds_to_connect
from jobqueue.threads import Backoff
from jobqueue_pg.errors import ROLLED_BACK, translate_errors
from jobqueue_pg.joining import Joined, Lent, joined
from jobqueue_pg.joining.cursor import CallersCursor
from jobqueue_pg.joining.port import Answer
from jobqueue_pg.pool import Pool
from jobqueue_pg.rows import Row
from jobqueue_pg.sessions import READ_COMMITTED, Session

_TIMES_TO_TRY: Final = 4
_FIRST_PAUSE: Final = 0.02
_SECONDS_TO_CLOSE: Final = 1.0
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")

Parameters = Mapping[str, object]
Joins = Callable[[], object]
"""Returns what can be joined, or None."""
_T = TypeVar("_T")


@attrs.define(eq=False)
class _Held:
    """A connection in place of a pool, in one thread. A context that was copied there may outlive it."""

    pool: Pool
    given: object
    thread: int
    is_over: bool = False


_held: ContextVar[_Held | None] = ContextVar("jobqueue_held_connection", default=None)


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

    def transact(self, work: Callable[[Lent], _T]) -> _T:
        """Do *work*, of several statements, in one transaction; return its result."""
        return self._try(work, READ_COMMITTED)

    def perform(self, work: Callable[[Lent], _T]) -> _T:
        """Do *work*, which is one statement and not given as such, in a transaction of its own; return its result."""
        return self._try(work)

    def joined(self, connection: object) -> Joined | None:
        """Return what the caller has given as its *connection*, to be joined; None: it has given none."""
        given = self.held if connection is None else connection
        return None if given is None else joined(given)

    @property
    def held(self) -> object | None:
        """The connection that stands in place of the pool here."""
        held = _held.get()
        if held is None or held.pool is not self.pool or held.is_over or held.thread != threading.get_ident():
            return None
        return held.given

    @contextmanager
    def holding(self, given: object) -> Generator[None]:
        """Have whatever this thread does within the block be a part of the transaction on *given*: for tests.

        Each use is a savepoint, so that what fails does not break the transaction.
        """
        held = _Held(self.pool, given, threading.get_ident())
        token = _held.set(held)
        try:
            yield
        finally:
            held.is_over = True
            _held.reset(token)

    def _try(self, work: Callable[[Lent], _T], isolation: LiteralString | None = None) -> _T:
        """Do *work*; again, after a short pause, up to three times when the server has rolled it back for no fault."""
        if _held.get() is not None and (given := self.held) is not None:
            return joined(given).perform(work, is_one_statement=False)
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

    def _try_once(self, work: Callable[[Lent], _T], isolation: LiteralString | None) -> _T:
        seconds = seconds_to_connect(self.pool.timeout)
        with self.pool.connection(seconds, isolation=isolation) as connection:
            return work(connection)

    def run(self, connection: Lent, statement: LiteralString, parameters: Mapping[str, str | None]) -> None:
        """Run one statement that is run very often, and whose rows nobody reads, on a *connection* of the pool."""
        if not (isinstance(connection, Session) and connection.prepares):
            self.execute(connection, statement, parameters)
            return
        ready = self._statement(statement)
        now = self.now()
        values = {"now": None if now is None else now.isoformat(), **parameters}
        connection.run_repeatedly(ready.text, [values[name] for name in ready.names])

    def execute(self, connection: Lent, statement: LiteralString, parameters: Parameters) -> Answer:
        """Run one statement on *connection*, as a part of whatever transaction is open there; return its answer."""
        ready = self._statement(statement)
        values = {"now": self.now(), **parameters}
        if not isinstance(connection, Connection):
            return connection.run(ready.named_text, values)
        make = RawCursor if isinstance(connection, Session) else CallersCursor
        cursor = make(connection, row_factory=tuple_row)
        return cursor.execute(ready.text, [values[name] for name in ready.names])

    def copy(self, connection: Lent, statement: LiteralString, blocks: Iterable[str]) -> None:
        """Run a COPY FROM STDIN of *blocks* on *connection*, as a part of whatever transaction is open there."""
        ready = self._statement(statement)
        if not isinstance(connection, Connection):
            connection.copy(ready.named_text, blocks)
            return
        with RawCursor(connection, row_factory=tuple_row).copy(ready.text) as copy:
            for block in blocks:
                copy.write(block)

    def joining(self, joins: "Joins") -> "Database":
        """Return the same, but that what it does becomes part of what *joins* returns, if it returns something."""
        return JoiningDatabase(self, joins)

    def close(self) -> None:
        """Give up the connections."""
        self._closing.set()
        self.pool.close(timeout=_SECONDS_TO_CLOSE)

    def _statement(self, statement: LiteralString) -> "_Statement":
        ready = self._statements.get(statement)
        if ready is None:
            ready = self._statements[statement] = _ready(statement, self.schema)
        return ready


class JoiningDatabase(Database):
    """A database each use of which is part of a transaction that the application holds, where it holds one.

    *joins* is asked for the connection each time, in the thread that is to use it. Several statements that belong
    together are a savepoint then. Nothing is tried again: what the server rolls back is not ours alone.
    """

    def __init__(self, own: Database, joins: Joins) -> None:
        super().__init__(own.pool, own.schema, own.now)
        self._own = own
        self._joins = joins

    def joined(self, connection: object) -> Joined | None:
        """Return what the caller has given, or else what the application says it is part of."""
        found = super().joined(connection)
        return super().joined(self._joins()) if found is None else found

    def _try(self, work: Callable[[Lent], _T], isolation: LiteralString | None = None) -> _T:
        given = None if self.held is not None else self._joins()
        if given is None:
            return self._own._try(work, isolation)  # noqa: SLF001 - of its own kind
        return joined(given).perform(work, is_one_statement=isolation is None)

    def close(self) -> None:
        """Give up the connections."""
        self._own.close()


@attrs.frozen
class _Statement:
    """A statement as the server takes it: its parameters are numbered."""

    text: bytes
    names: tuple[str, ...]
    named_text: str
    """The same for drivers that write values in place of the names."""


def _ready(statement: LiteralString, schema: str) -> _Statement:
    """Put the schema's name in, and numbers in place of the parameters' names.

    The driver would do the latter itself, but keeps the result only of texts of up to 4 kB, and a trip is longer: half
    a millisecond each time.
    """
    names = tuple(dict.fromkeys(_PARAMETER.findall(statement)))
    numbers = {name: f"${number}" for number, name in enumerate(names, start=1)}
    numbered = _PARAMETER.sub(lambda found: numbers[found[1]], statement).replace("%%", "%")
    template = sql.SQL(numbered)  # pyright: ignore[reportArgumentType] - still what the literal says
    identifier = sql.Identifier(schema)
    named = statement.replace("{schema}", identifier.as_string(None).replace("%", "%%"))
    return _Statement(template.format(schema=identifier).as_bytes(None), names, named)
