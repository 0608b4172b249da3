"""A connection of psycopg2: its statements, values, rows and errors as psycopg 3 has them.

psycopg2 has no parameters of the server's: it writes values into the statement. Ours are written as literals without a
type, which take that of their place as the parameters of psycopg 3 do.
"""

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.pq import DiagnosticField

_SAVEPOINT: Final = "jobqueue"
# As libpq numbers them.
_IDLE: Final = 0
_IN_ERROR: Final = 3
_UNKNOWN: Final = 4
_UTF8: Final = frozenset({"UTF8", "UNICODE", "UTF-8"})
_SECOND: Final = timedelta(seconds=1)


def connection_of(given: Any) -> "Psycopg2Connection | None":
    """Return the connection that *given* is, or is a cursor of; None: it is nothing of psycopg2's."""
    extensions: Any = sys.modules.get("psycopg2.extensions")
    if extensions is None:
        return None
    if isinstance(given, extensions.cursor):
        given = given.connection
    return Psycopg2Connection(given, extensions) if isinstance(given, extensions.connection) else None


class Psycopg2Connection:
    """The Foreign of psycopg2."""

    def __init__(self, original: Any, extensions: Any) -> None:
        self.original: Final = original
        self._extensions = extensions

    @property
    def closed(self) -> bool:
        """Whether it is closed, or known to be lost."""
        return bool(self.original.closed)

    @property
    def can_copy(self) -> bool:
        """Whether all text can be sent by COPY."""
        return self.original.encoding in _UTF8

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, broken or not."""
        return not self.closed and self._status not in (_IDLE, _UNKNOWN)

    @property
    def is_broken(self) -> bool:
        """Whether a statement has failed in the open transaction."""
        return not self.closed and self._status == _IN_ERROR

    @property
    def _status(self) -> int:
        return self.original.info.transaction_status  # type: ignore[no-any-return]

    def run(self, statement: str, values: Mapping[str, object]) -> "Rows":
        """Run *statement*."""
        literals = {name: literal_of(value) for name, value in values.items()}
        with _raising_twins(self.original), self._cursor() as cursor:
            cursor.execute(statement, literals)
            return Rows(cursor.rowcount, None if cursor.description is None else cursor.fetchall())

    def copy(self, statement: str, blocks: Iterable[str]) -> None:
        """Run a COPY of *blocks*."""
        with _raising_twins(self.original), self._cursor() as cursor:
            cursor.copy_expert(statement, _File(blocks))

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Do what is done in the block as a whole."""
        begin, end, undo = (
            ("begin", "commit", "rollback")
            if self.original.autocommit and not self.is_in_transaction
            else (
                f"savepoint {_SAVEPOINT}",
                f"release {_SAVEPOINT}",
                f"rollback to {_SAVEPOINT}; release {_SAVEPOINT}",
            )
        )
        self.run(begin, {})
        try:
            yield
            self.run(end, {})
        except BaseException:
            with suppress(psycopg.Error):
                self.run(undo, {})
            raise

    def _cursor(self) -> Any:
        """Make a cursor that is as psycopg2 has it, whatever the application has made of its connection."""
        plain = self._extensions
        cursor = plain.connection.cursor(self.original, cursor_factory=plain.cursor)
        for caster in _casters(plain):
            plain.register_type(caster, cursor)
        return cursor


class Rows:
    """The Answer of psycopg2: rows that are all there."""

    def __init__(self, rowcount: int, rows: Sequence[Sequence[Any]] | None) -> None:
        self.rowcount: Final = rowcount
        self._rows = None if rows is None else iter(rows)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        if self._rows is None:
            raise psycopg.ProgrammingError("the statement returns no rows")
        return self._rows

    def fetchone(self) -> Sequence[Any] | None:
        """Return the next row."""
        return next(iter(self), None)

    def fetchall(self) -> list[Sequence[Any]]:
        """Return all rows that are left."""
        return list(self)


class _File:
    """Blocks of text as the file from which psycopg2 copies; how many characters it asks for is not heeded."""

    def __init__(self, blocks: Iterable[str]) -> None:
        self._blocks = iter(blocks)

    def read(self, _size: int = -1) -> str:
        return next(self._blocks, "")

    def readline(self, _size: int = -1) -> str:  # psycopg2 wants both
        return self.read()


def literal_of(value: object) -> object:
    """Return *value* as psycopg2 is to write it: as a literal without a type, unless it is a number or so."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return _text_of(value)


def _text_of(value: Any) -> str:
    match value:
        case str():
            return str(value)
        case bool():
            return "t" if value else "f"
        case int() | float() | UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value // _SECOND} seconds {(value % _SECOND).microseconds} microseconds"
        case list() | tuple():
            elements = cast("Iterable[Any]", value)
            return f"{{{','.join(map(_element_of, elements))}}}"
        case _:
            raise TypeError(f"no statement of ours takes a {type(value).__qualname__}")


def _element_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return _text_of(value)
    text = _text_of(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


@lru_cache(1)
def _casters(extensions: Any) -> Sequence[object]:
    """Return what makes of columns what psycopg 3 would; moments are UTC whatever the session's time zone is."""

    def caster(name: str, oid: int, array_oid: int, make: Callable[[str, Any], object]) -> tuple[object, object]:
        def cast(text: str | None, cursor: Any) -> object:
            return None if text is None else make(text, cursor)

        single = extensions.new_type((oid,), name, cast)
        return single, extensions.new_array_type((array_oid,), f"{name}[]", single)

    return (
        *caster("uuid", 2950, 2951, lambda text, _: UUID(text)),
        *caster("json", 114, 199, lambda text, _: json.loads(text)),
        *caster("jsonb", 3802, 3807, lambda text, _: json.loads(text)),
        *caster("timestamptz", 1184, 1185, lambda text, cursor: _moment(extensions.PYDATETIMETZ(text, cursor))),
        *caster("text", 25, 1009, lambda text, _: text),
        *caster("interval", 1186, 1187, extensions.PYINTERVAL),
    )


def _moment(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


@contextmanager
def _raising_twins(original: Any) -> Generator[None]:
    """Raise what psycopg2 raises as psycopg 3 does, with psycopg2's as its cause."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, UnicodeError):
            raise
        # PostgreSQL text cannot contain NUL.
        raise psycopg.DataError(str(error)) from error
    except Exception as error:
        if not is_error(error):
            raise
        raise twin_of(error, is_lost=bool(original.closed)) from error


def is_error(error: BaseException) -> bool:
    """Return whether psycopg2 has raised it."""
    psycopg2: Any = sys.modules.get("psycopg2")
    return psycopg2 is not None and isinstance(error, psycopg2.Error)


def twin_of(error: Any, *, is_lost: bool = False) -> psycopg.Error:
    """Return the error of psycopg 3 that says what psycopg2's *error* says."""
    message = str(error.args[0]) if error.args else ""
    if error.pgcode is None:
        return (psycopg.OperationalError if is_lost else _class_like(error))(message)
    try:
        kind: type[psycopg.Error] = errors.lookup(error.pgcode)
    except KeyError:
        kind = _class_like(error)
    return kind(message, info=_info_of(error.diag, error.pgcode))


def _class_like(error: Any) -> type[psycopg.Error]:
    """Return the class of the DB-API that the error is of, as psycopg 3 has it."""
    for kind in type(error).__mro__:
        found = getattr(psycopg, kind.__name__, None)
        if isinstance(found, type) and issubclass(found, psycopg.Error):
            return found
    return psycopg.Error


def _info_of(diag: Any, sqlstate: str) -> dict[int, bytes | None]:
    told: dict[int, bytes | None] = {}
    for field in DiagnosticField:
        value = getattr(diag, field.name.lower(), None)
        told[field] = None if value is None else str(value).encode()
    return {**told, DiagnosticField.SQLSTATE: sqlstate.encode()}
