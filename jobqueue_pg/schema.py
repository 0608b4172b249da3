"""Brings a schema to what this version needs: applies migrations/ in order, or says what is amiss and what to do."""

import hashlib
import logging
import re
import shlex
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from jobqueue.errors import SchemaError
from jobqueue_pg.adoption import Adoption
from jobqueue_pg.errors import translate_errors
from jobqueue_pg.pool import complete_conninfo
from jobqueue_pg.sessions import hears, is_lent

logger = logging.getLogger(__name__)

DEFAULT_SCHEMA: Final = "worker"

# A channel has at most 63 bytes, and the longest is NAME.job_bundle_stopped.
_MAX_SCHEMA_BYTES: Final = 63 - len(".job_bundle_stopped")

_LOCK_POLL_SECONDS: Final = 0.1
_ADOPTION: Final = "adopt_go_jobqueue.sql"

# From the catalog, which everyone may read: to_regclass() fails where the schema itself may not be used.
_FIND_COLUMNS: Final = """
select a.attname::text, format_type(a.atttypid, null)
from pg_catalog.pg_attribute as a
    join pg_catalog.pg_class as c on c.oid = a.attrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = %s
    and c.relname = %s
    and a.attnum > 0
    and not a.attisdropped
"""
_RECORD_COLUMNS: Final = {"version": "integer", "name": "text", "checksum": "text"}
_CREATE_RECORD: Final = sql.SQL("""
create table {schema}.migration (
    version    integer     not null primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default clock_timestamp()
)
""")
# What adopt_go_jobqueue.sql says.
_FIND_ADOPTION: Final = """
select
from pg_catalog.pg_description as d
    join pg_catalog.pg_class as c on c.oid = d.objoid and d.classoid = 'pg_catalog.pg_class'::regclass
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = %s
    and c.relname = 'job'
    and d.objsubid = 0
    and d.description like '%%taken over from go-jobqueue%%'
"""
_GET_RECORD: Final = sql.SQL("select version, name, checksum from {schema}.migration order by version")
_ADD_RECORD: Final = sql.SQL("insert into {schema}.migration (version, name, checksum) values ({}, {}, {})")


@attrs.frozen
class _Migration:
    version: int
    name: str
    script: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.script.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return re.search(r"^-- transaction: none$", self.script, re.MULTILINE) is None

    @property
    def statements(self) -> Iterator[str]:
        """The statements of a file that runs without a transaction: each ends with a ``;`` at the end of a line.

        What stands between ``$$`` is a part of one, whatever it ends with.
        """
        code = re.sub(r"^\s*--.*$", "", self.script, flags=re.MULTILINE)
        found = re.finditer(r"(?:\$\$.*?\$\$|.)+?(?=;[ \t]*$)", code, flags=re.MULTILINE | re.DOTALL)
        return (statement for each in found if (statement := each[0].lstrip(";").strip()))


def migrations_dir() -> Path:
    """Return the folder of the SQL files: within the package when installed, beside it in a checkout."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "migrations"


def channel_prefix(schema: str) -> str:
    """Return what the names of a schema's channels begin with: nothing in ``worker``, as go-jobqueue has it."""
    return "" if schema == DEFAULT_SCHEMA else f"{schema}."


def migrate(
    conninfo: str = "", *, schema: str = DEFAULT_SCHEMA, to: str | int | None = None, adopt: bool = False
) -> list[str]:
    """Bring *schema* up to date; return the names of the migrations that this took, in order: none if it was.

    Safe to call from many processes at once: one works, the others wait for it and find nothing left to do. The
    connection must be to the server itself, or through a pooler that keeps sessions: the lock belongs to the session.

    *to* is the last migration to apply, by name (``0001_create_queue``) or number; None means all. *adopt* takes over
    the tables of go-jobqueue 0.5 to 0.7 that the schema holds, while they are in use: where there are none, it makes no
    difference. Its progress, and what it found, are logged by ``jobqueue_pg.adoption``.

    Raises:
        LockTimeoutError: others held the tables for too long; the same call goes on from there.
        SchemaError: the schema cannot be brought up to date; the message says why, and the way out.
        BackendError: the database refused or failed; what was applied before stays applied.
        ValueError: *conninfo* is not a connection string.
    """
    _check_name(schema)
    known = _known_migrations()
    wanted = _until(to, known)
    complete = complete_conninfo(conninfo)
    with translate_errors(), psycopg.connect(complete, autocommit=True) as connection:
        if is_lent(connection) and not hears(complete, connection):
            raise SchemaError(
                "a pooler lends sessions for one transaction at a time, and a migration needs one for itself: migrate "
                "through a connection to the server"
            )
        connection.execute("set statement_timeout = 0")
        with _alone(connection, schema), _explaining_refusal(schema):
            adopted = known[:1] if adopt and _is_foreign(connection, schema) else []
            for migration in adopted:
                _adopt(connection, schema, migration)
            pending = _pending(connection, schema, known, wanted)
            for migration in pending:
                _apply(connection, schema, migration)
                logger.info("applied migration %s to schema %s", migration.name, schema)
    return [migration.name for migration in (*adopted, *pending)]


def _pending(
    connection: psycopg.Connection[Any], schema: str, known: Sequence[_Migration], wanted: Sequence[_Migration]
) -> list[_Migration]:
    """Return those of *wanted* that were not applied. Raises SchemaError unless those that were are what we know."""
    applied = _read_record(connection, schema, known)
    for migration in known:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise SchemaError(
                f"migration {migration.name} has another checksum than when it was applied to "
                f'schema "{schema}": its file was edited. Restore it, or install the package again'
            )
    return [migration for migration in wanted if migration.version not in applied]


def pending_script(conninfo: str = "", *, schema: str = DEFAULT_SCHEMA) -> str:
    """Return what ``migrate`` would run now to bring *schema* up to date, as a script for psql; "" if it is.

    It notes what it has done, so that ``migrate`` takes it for its own. Nothing is changed here.

    Raises:
        SchemaError, BackendError, ValueError: as ``migrate``.
    """
    _check_name(schema)
    known = _known_migrations()
    complete = complete_conninfo(conninfo)
    with translate_errors(), psycopg.connect(complete, autocommit=True) as connection, _explaining_refusal(schema):
        pending = _pending(connection, schema, known, known)
        lacks_schema, lacks_record = not _has_schema(connection, schema), not _has_record(connection, schema)
    parts = [_spelt(migration, schema) for migration in pending]
    if parts and lacks_record:
        parts.insert(0, f"{_CREATE_RECORD.format(schema=sql.Identifier(schema)).as_string(None).strip()};\n")
    if parts and lacks_schema:
        parts.insert(0, f"create schema {_quoted(schema)};\n")
    return "\n".join(["set client_encoding = 'UTF8';\nset statement_timeout = 0;\n", *parts]) if parts else ""


def _spelt(migration: _Migration, schema: str) -> str:
    """Return what applies *migration* to *schema*, as psql takes it: each statement by itself."""
    head, scope, script, tail = "begin;\n", "local", migration.script.rstrip(), "commit;\n"
    if not migration.in_transaction:
        head, scope, script, tail = "", "session", "\n".join(f"{each};" for each in migration.statements), ""
    record = _record_of(migration, schema).as_string(None)
    search_path = f"set {scope} search_path to {_quoted(schema)}, pg_temp;"
    return f"-- {migration.name}\n{head}{search_path}\n{script}\n{record};\n{tail}"


def migration_script(name: str, *, schema: str = DEFAULT_SCHEMA) -> str:
    """Return the statements by which ``migrate`` brings *schema* from the migration before *name* to that one.

    They are for reading: what it notes of them is left out. Raises SchemaError when there is no such migration.
    """
    _check_name(schema)
    migration = _until(name, _known_migrations())[-1]
    identifier = _quoted(schema)
    return f"create schema if not exists {identifier};\nset search_path to {identifier}, pg_temp;\n{migration.script}"


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def check_schema(connection: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Make sure that *schema* is what this version needs. Changes nothing.

    Raises:
        SchemaError: it was never migrated, lacks a migration, or has one that this version does not know; the message
            names the way out.
    """
    _check_name(schema)
    known = _known_migrations()
    with translate_errors(), _explaining_refusal(schema):
        applied = _read_record(connection, schema, known)
    if pending := [migration.name for migration in known if migration.version not in applied]:
        lack = f"lacks {', '.join(pending)}, which this version needs" if applied else "holds no queue yet"
        raise SchemaError(f'schema "{schema}" {lack}: run `jobqueue migrate --schema {shlex.quote(schema)}`')


def is_adopted(connection: psycopg.Connection[Any], schema: str) -> bool:
    """Return whether the tables in *schema* were go-jobqueue's, which is noted in the comment on one of them."""
    return connection.execute(_FIND_ADOPTION, [schema]).fetchone() is not None


def _check_name(schema: str) -> None:
    size = len(schema.encode(errors="replace"))
    if not 1 <= size <= _MAX_SCHEMA_BYTES:
        raise SchemaError(
            f"the name of a schema has 1 to {_MAX_SCHEMA_BYTES} bytes here, or its channels' names would be too long, "
            f"but {schema[:_MAX_SCHEMA_BYTES]!r} has {size}: choose another name"
        )
    if "\0" in schema or schema.encode(errors="replace").decode() != schema:
        raise SchemaError(f"schema {schema!r} has a character that PostgreSQL cannot store: choose another name")
    # A search_path takes "$user" for the user's name, even in quotes.
    if schema.startswith("pg_") or schema in {"information_schema", "$user"}:
        raise SchemaError(f'schema "{schema}" is PostgreSQL\'s own: choose another name')


def _known_migrations() -> list[_Migration]:
    paths = sorted(migrations_dir().glob("[0-9][0-9][0-9][0-9]_*.sql"))
    if not paths:
        raise SchemaError(f"no migrations in {migrations_dir()}: the package is incomplete, install it again")
    # read_text() makes every line end a \n: a checkout that has \r\n has the same checksums.
    return [_Migration(int(path.stem[:4]), path.stem, path.read_text(encoding="utf-8")) for path in paths]


def _until(to: str | int | None, known: Sequence[_Migration]) -> Sequence[_Migration]:
    if to is None:
        return known
    for position, migration in enumerate(known, start=1):
        if to in {migration.version, migration.name, migration.name[:4]}:
            return known[:position]
    names = ", ".join(migration.name for migration in known)
    raise SchemaError(f"there is no migration {to!r} to go to: this version has {names}")


@contextmanager
def _alone(connection: psycopg.Connection[Any], schema: str) -> Generator[None]:
    digest = hashlib.sha256(f"jobqueue.migrate:{schema}".encode()).digest()
    key = [int.from_bytes(digest[:8], signed=True)]
    # Asked for again and again, never waited for: a waiting statement holds a snapshot, for whose end a CREATE INDEX
    # CONCURRENTLY of the lock's owner would wait in turn.
    pause = threading.Event()
    while connection.execute("select pg_try_advisory_lock(%s::bigint)", key).fetchone() != (True,):
        pause.wait(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s::bigint)", key)


@contextmanager
def _explaining_refusal(schema: str) -> Generator[None]:
    try:
        yield
    except InsufficientPrivilege as error:
        raise SchemaError(
            f'the database user may not do this with schema "{schema}" ({str(error).strip()}): migrate as its owner '
            "(made by `create schema ... authorization ...`); other users need `usage` on it, and rights on its tables"
        ) from error


def _read_record(connection: psycopg.Connection[Any], schema: str, known: Sequence[_Migration]) -> dict[int, str]:
    """Return the checksum of each version that was applied. Raises SchemaError unless all is ours, and known to us."""
    applied = _applied(connection, schema)
    if not applied and (tables := _queue_tables(connection, schema)):
        raise SchemaError(
            f'table "{tables[0]}" in schema "{schema}" is go-jobqueue\'s or another program\'s, not made by '
            "`jobqueue migrate`: give the queue a schema of its own, or have go-jobqueue's tables taken over by "
            f"`jobqueue migrate --adopt --schema {shlex.quote(schema)}` (adopt=True). Processes of go-jobqueue 0.6 and "
            "older, which select `*`, fail on columns that they do not know: upgrade them to 0.7 first"
        )
    versions = {migration.version for migration in known}
    if unknown := [name for version, name, _ in applied if version not in versions]:
        raise SchemaError(
            f'schema "{schema}" is too new for this version, which does not know {", ".join(unknown)}: '
            "upgrade the package jobqueue"
        )
    return {version: checksum for version, _, checksum in applied}


def _applied(connection: psycopg.Connection[Any], schema: str) -> list[tuple[int, str, str]]:
    columns = dict(connection.execute(_FIND_COLUMNS, [schema, "migration"]).fetchall())
    if columns and not _RECORD_COLUMNS.items() <= columns.items():
        raise SchemaError(
            f'table "migration" in schema "{schema}" is another program\'s: give the queue a schema of its own'
        )
    return connection.execute(_GET_RECORD.format(schema=sql.Identifier(schema))).fetchall() if columns else []


def _queue_tables(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    return [table for table in ("job", "job_bundle") if connection.execute(_FIND_COLUMNS, [schema, table]).fetchone()]


def _is_foreign(connection: psycopg.Connection[Any], schema: str) -> bool:
    """Whether the schema holds tables that we did not make, or did not finish to take over."""
    return not _applied(connection, schema) and bool(_queue_tables(connection, schema))


def _adopt(connection: psycopg.Connection[Any], schema: str, first: _Migration) -> None:
    changes = (migrations_dir() / _ADOPTION).read_text(encoding="utf-8")
    Adoption(connection, schema, creation=first.script, changes=changes).run()
    with connection.transaction():
        _record(connection, schema, first)
    logger.info("took over the tables in schema %s", schema)


def _apply(connection: psycopg.Connection[Any], schema: str, migration: _Migration) -> None:
    identifier = sql.Identifier(schema)
    set_search_path = sql.SQL("set {} search_path to {}, pg_temp")
    # Scripts go as bytes: str would have to be a literal.
    if not migration.in_transaction:
        connection.execute(set_search_path.format(sql.SQL("session"), identifier))
        for statement in migration.statements:
            connection.execute(statement.encode())
        _record(connection, schema, migration)
        return
    with connection.transaction():
        # Asked first: CREATE SCHEMA IF NOT EXISTS needs the right to make one even where it has nothing to do.
        if not _has_schema(connection, schema):
            connection.execute(sql.SQL("create schema if not exists {}").format(identifier))
        connection.execute(set_search_path.format(sql.SQL("local"), identifier))
        connection.execute(migration.script.encode())
        _record(connection, schema, migration)


def _has_schema(connection: psycopg.Connection[Any], schema: str) -> bool:
    return bool(connection.execute("select from pg_catalog.pg_namespace where nspname = %s", [schema]).fetchall())


def _has_record(connection: psycopg.Connection[Any], schema: str) -> bool:
    return bool(connection.execute(_FIND_COLUMNS, [schema, "migration"]).fetchall())


def _record(connection: psycopg.Connection[Any], schema: str, migration: _Migration) -> None:
    if not _has_record(connection, schema):
        connection.execute(_CREATE_RECORD.format(schema=sql.Identifier(schema)))
    connection.execute(_record_of(migration, schema))


def _record_of(migration: _Migration, schema: str) -> sql.Composed:
    # Not as parameters: with any, a % in the schema's name would be taken for one more.
    values = map(sql.Literal, (migration.version, migration.name, migration.checksum))
    return _ADD_RECORD.format(*values, schema=sql.Identifier(schema))
