"""Bringing schemas up to date, and refusing those that are not ours, not whole, or too new."""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobqueue.errors import BackendError, RefusedError, SchemaError
from jobqueue_pg import schema as schema_module
from jobqueue_pg.schema import _Migration, channel_prefix, check_schema, migrate, migrations_dir
from tests.fixtures.listening import Ear
from tests.fixtures.roles import as_role

FILES = sorted(migrations_dir().glob("[0-9]*.sql"))
NAMES = [path.stem for path in FILES]
ODD_SCHEMAS = [
    "Worker",
    "with space",
    'quo"te',
    "apo'stroph",
    "back\\slash",
    "semi;colon -- comment",
    "a.b",
    "100%s",
    "$$",
    "select",
    "ünï",
    "x" * 44,
    "ü" * 22,
]


def connect(conninfo: str) -> "closing[psycopg.Connection[Any]]":
    return closing(psycopg.connect(conninfo, autocommit=True))


def execute(conninfo: str, statement: LiteralString) -> None:
    with connect(conninfo) as connection:
        connection.execute(statement)


def check(conninfo: str, schema: str = "worker") -> None:
    with connect(conninfo) as connection:
        check_schema(connection, schema)


def column(conninfo: str, query: LiteralString) -> list[Any]:
    with connect(conninfo) as connection:
        return [value for (value,) in connection.execute(query)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations that the test may change."""
    for path in migrations_dir().glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(schema_module, "migrations_dir", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def owner(role: str, database: str) -> Iterator[str]:
    """Conninfo of a database whose owner is no superuser, as that owner."""
    yield as_role(database, role, "alter database {database} owner to {role}")
    with connect(database) as admin:
        admin.execute(sql.SQL("reassign owned by {} to current_user").format(sql.Identifier(role)))
        admin.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))


@pytest.fixture
def guest(role: str, database: str) -> Iterator[str]:
    """Conninfo of somebody else's database, for a role that may do nothing there."""
    yield as_role(database, role)
    with connect(database) as admin:
        admin.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))


# --- files


def test_files_are_named_and_explained() -> None:
    """Each migration is NNNN_verb_noun.sql, numbered without a gap, and begins with why, locks, and when to run it."""
    for number, path in enumerate(FILES, start=1):
        assert re.fullmatch(rf"{number:04}_[a-z]+(_[a-z]+)+\.sql", path.name)
        header = path.read_text(encoding="ascii").split("\n\n")[0]
        assert all(line.startswith("--") for line in header.splitlines())
        assert re.search(r"^-- Why: ", header, re.MULTILINE)
        assert re.search(r"^-- Locks: ", header, re.MULTILINE)
        assert re.search(r"^-- Run: (before|after) the new code", header, re.MULTILINE)


def test_files_can_be_applied_by_hand(database: str) -> None:
    """The files work in whatever schema comes first in the search_path, as with psql."""
    execute(database, "create schema by_hand")
    with connect(make_conninfo(database, options="-csearch_path=by_hand")) as connection:
        for path in FILES:
            script = _Migration(0, path.stem, path.read_text(encoding="ascii"))
            with connection.transaction() if script.in_transaction else nullcontext():
                for statement in [script.script] if script.in_transaction else script.statements:
                    connection.execute(statement.encode())
        connection.execute(
            """
            insert into by_hand.job_bundle (type, origin, num_jobs, on_stopped)
            values ('b', 'o', 1, '{"type": "done", "payload": 1}')
            """
        )
        connection.execute("set search_path = public")
        connection.execute("update by_hand.job_bundle set num_jobs_stopped = 1")
    assert column(database, "select type from by_hand.job") == ["done"]


# --- migrating


def test_migrate_is_idempotent(database: str) -> None:
    """The first call returns what it applied, and leaves a record of it; the second finds nothing to do."""
    assert migrate(database) == NAMES
    record = column(database, "select (version, name, checksum)::text from worker.migration order by version")
    sums = [hashlib.sha256((migrations_dir() / f"{name}.sql").read_bytes()).hexdigest() for name in NAMES]
    assert record == [f"({n},{name},{sums[n - 1]})" for n, name in enumerate(NAMES, start=1)]
    assert migrate(database) == []
    assert migrate(database, adopt=True) == []
    check(database)


def test_migrate_concurrently(database: str) -> None:
    """Of many that migrate at once, one does each step, and all return when everything is done."""
    with ThreadPoolExecutor(6) as executor:
        applied = list(executor.map(lambda _: migrate(database), range(6)))
    check(database)
    assert sorted(applied) == [[]] * 5 + [NAMES]


def test_migrate_reads_the_environment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without conninfo, libpq's environment variables say where the database is."""
    variables = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    given = conninfo_to_dict(database)
    for name, variable in variables.items():
        if name in given:
            monkeypatch.setenv(variable, str(given[name]))
    assert migrate() == NAMES


def test_several_schemas(database: str) -> None:
    """Queues in several schemas of a database have their own tables, and their own channels."""
    assert migrate(database) == migrate(database, schema="other") == NAMES
    channels = ("job_available", "other.job_available")
    with Ear(database, channels) as ear:
        for insert in (
            "insert into worker.job (type, payload, priority, origin) values ('mine', '{}', 0, 'o')",
            "insert into other.job (type, payload, priority, origin) values ('theirs', '{}', 0, 'o')",
        ):
            execute(database, insert)
        assert [(channel, told["type"]) for channel, told in ear.heard()] == [
            ("job_available", "mine"),
            ("other.job_available", "theirs"),
        ]
    assert column(database, "select type from worker.job") == ["mine"]


@pytest.mark.parametrize("schema", ODD_SCHEMAS)
def test_odd_schemas(database: str, schema: str) -> None:
    """Any name that leaves room for the channels is good: all of the queue works in it."""
    assert migrate(database, schema=schema) == NAMES
    assert migrate(database, schema=schema) == []
    check(database, schema)
    prefix = channel_prefix(schema)
    channels = tuple(prefix + event for event in ("job_available", "job_stopped", "job_bundle_stopped"))
    with Ear(database, channels) as ear, connect(database) as connection:
        for statement in (
            """
            insert into {}.job_bundle (type, origin, num_jobs, on_stopped)
            values ('b', 'o', 1, '{{"type": "done", "payload": 1}}')
            """,
            "update {}.job_bundle set num_jobs_stopped = 1",
            "update {}.job set started_at = now(), stopped_at = now()",
            "update {}.job set started_at = null, stopped_at = null",
        ):
            connection.execute(sql.SQL(statement).format(sql.Identifier(schema)))
        assert sorted(channel for channel, _ in ear.heard()) == sorted((*channels, channels[0]))


def test_channel_prefix() -> None:
    """Only in the schema `worker` are channels named as in go-jobqueue."""
    assert channel_prefix("worker") == ""
    assert channel_prefix("Worker") == "Worker."


@pytest.mark.parametrize(
    "schema", ["", "x" * 45, "ü" * 23, "nul\0", "\ud800", "pg_queue", "information_schema", "$user"]
)
def test_impossible_schemas(schema: str, database: str) -> None:
    """A name that PostgreSQL or the channels cannot have is refused before anything is touched."""
    with pytest.raises(SchemaError, match="choose another name"):
        migrate("host=nowhere.invalid", schema=schema)
    with pytest.raises(SchemaError, match="choose another name"):
        check(database, schema)


def test_migrate_to(database: str, files: Path) -> None:
    """`to` stops at a migration, by name or number; going back is not possible, and changes nothing."""
    (files / "9998_create_one.sql").write_text("create table one ()")
    (files / "9999_create_two.sql").write_text("create table two ()")
    assert migrate(database, to="9998") == [*NAMES, "9998_create_one"]
    with pytest.raises(SchemaError, match=r'schema "worker" lacks 9999_create_two.*`jobqueue migrate --schema worker`'):
        check(database)
    assert migrate(database, to=1) == migrate(database, to="9998_create_one") == []
    assert migrate(database, to=9999) == ["9999_create_two"]
    check(database)
    for unknown in ("9997", 0, "", "nonsense"):
        with pytest.raises(SchemaError, match=r"there is no migration .* this version has 0001_create_queue"):
            migrate(database, to=unknown)


def test_a_failed_migration_leaves_nothing(database: str, files: Path) -> None:
    """A file is applied and recorded in one transaction; the files before it stay."""
    (files / "9999_create_two.sql").write_text("create table one (); create table one ()")
    with pytest.raises(RefusedError) as caught:
        migrate(database)
    assert isinstance(caught.value.__cause__, psycopg.errors.DuplicateTable)
    assert column(database, "select name from worker.migration") == NAMES
    assert column(database, "select to_regclass('worker.one') is null") == [True]


def test_a_failed_first_migration_leaves_no_schema(database: str, files: Path) -> None:
    """What did not begin is not there, and can be begun again."""
    whole = (files / "0001_create_queue.sql").read_text()
    (files / "0001_create_queue.sql").write_text(f"{whole}\nselect 1 / 0")
    with pytest.raises(BackendError):
        migrate(database)
    assert column(database, "select to_regnamespace('worker') is null") == [True]
    (files / "0001_create_queue.sql").write_text(whole)
    assert migrate(database) == NAMES


def test_files_without_a_transaction(database: str, files: Path) -> None:
    """With `-- transaction: none` each statement is on its own, so that indexes can be built concurrently.

    A migrate that waits meanwhile does not hold the build up, and a file that failed half-way can be run again.
    """
    script = """-- Build two indexes.
-- transaction: none
-- A comment may end in a semicolon;

create index concurrently if not exists one_idx on job (priority);
create index concurrently if not exists two_idx on job (priority)
    where priority > 0;
"""
    broken = script.replace("priority > 0", "nonsense > 0")
    (files / "9999_index_jobs.sql").write_text(broken)
    with pytest.raises(BackendError):
        migrate(database)
    assert column(database, "select to_regclass('worker.one_idx') is not null") == [True]
    (files / "9999_index_jobs.sql").write_text(script)
    with ThreadPoolExecutor(4) as executor:
        applied = list(executor.map(lambda _: migrate(database), range(4)))
    assert sorted(applied) == [[], [], [], ["9999_index_jobs"]]
    assert column(database, "select to_regclass('worker.two_idx') is not null") == [True]
    check(database)


def test_line_ends_do_not_matter(database: str, files: Path) -> None:
    """A checkout with other line ends has the same migrations."""
    migrate(database)
    path = files / "0001_create_queue.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate(database) == []


def test_a_statement_timeout_of_the_user_does_not_count(database: str, files: Path) -> None:
    """Migrations take as long as they take, whatever is set for the user's other statements."""
    (files / "9999_note_timeout.sql").write_text("create table note as select current_setting('statement_timeout')")
    migrate(make_conninfo(database, options="-c statement_timeout=10s"))
    assert column(database, "select * from worker.note") == ["0"]


# --- users


def test_the_owner_of_a_database_can_migrate(owner: str) -> None:
    """No superuser is needed, nor an extension."""
    assert migrate(owner) == NAMES
    check(owner)
    execute(owner, "insert into worker.job (type, payload, priority, origin) values ('t', '{}', 0, 'o')")


def test_the_owner_of_a_schema_can_migrate(guest: str, database: str, role: str) -> None:
    """Who owns an empty schema needs no right to create another."""
    with connect(database) as admin:
        admin.execute(sql.SQL("create schema worker authorization {}").format(sql.Identifier(role)))
    assert migrate(guest) == NAMES
    check(guest)


def test_who_may_not_create_is_told(guest: str) -> None:
    """Without the right to make the schema, the error says what is missing; the driver's is its cause."""
    with pytest.raises(SchemaError, match=r'schema "worker" \(permission denied for database .*as its owner') as caught:
        migrate(guest)
    assert isinstance(caught.value.__cause__, psycopg.errors.InsufficientPrivilege)


def test_who_may_not_read_is_told(guest: str, database: str) -> None:
    """A user without rights on the schema is told so, and not that it is missing."""
    migrate(database)
    with pytest.raises(SchemaError, match="permission denied for schema worker"):
        check(guest)


# --- refusals


def test_nothing_there(database: str) -> None:
    """A schema that was never migrated is refused with the command to run, ready for a shell."""
    with pytest.raises(SchemaError, match='schema "worker" holds no queue yet: run `jobqueue migrate --schema worker`'):
        check(database)
    with pytest.raises(SchemaError, match="--schema 'my queue'`"):
        check(database, "my queue")


def test_checking_changes_nothing(database: str) -> None:
    """A look works in a read-only transaction."""
    migrate(database)
    with closing(psycopg.connect(database, options="-c default_transaction_read_only=on")) as connection:
        check_schema(connection)


def test_changed_file(database: str, files: Path) -> None:
    """A file that was edited after it was applied is refused, with everything that comes after it."""
    migrate(database)
    path = files / "0001_create_queue.sql"
    path.write_text(path.read_text() + "-- edited\n")
    (files / "9999_create_two.sql").write_text("create table two ()")
    with pytest.raises(SchemaError, match=r'0001_create_queue has another checksum .* schema "worker"'):
        migrate(database)
    assert column(database, "select name from worker.migration") == NAMES


def test_too_new(database: str) -> None:
    """A schema that a newer version has migrated is neither changed nor used."""
    migrate(database)
    execute(database, "insert into worker.migration values (9999, '9999_add_future', 'sum')")
    for refused in (migrate, check):
        with pytest.raises(SchemaError, match=r'"worker" is too new .* 9999_add_future: upgrade the package jobqueue'):
            refused(database)


@pytest.mark.parametrize("table", ["job", "job_bundle"])
def test_tables_of_others(database: str, table: str) -> None:
    """Tables that we did not make are left alone; go-jobqueue's are taken over only when that is asked for."""
    with connect(database) as connection:
        connection.execute("create schema worker")
        connection.execute(sql.SQL("create table worker.{} (id uuid)").format(sql.Identifier(table)))
    whose = rf'table "{table}" in schema "worker" is go-jobqueue\'s or another program\'s'
    for refused in (migrate, check):
        with pytest.raises(SchemaError, match=rf"{whose}.*a schema of its own.*--adopt.*0\.6 and older.*0\.7 first"):
            refused(database)
    with pytest.raises(SchemaError, match=r'"worker" are not those of go-jobqueue'):
        migrate(database, adopt=True)
    assert column(database, "select to_regclass('worker.migration') is null") == [True]


@pytest.mark.parametrize(
    "columns", ["version text, name text, checksum text", "id integer, name text", "version integer"]
)
def test_migration_table_of_others(database: str, columns: LiteralString) -> None:
    """Another program's table of migrations is left alone."""
    execute(database, "create schema worker")
    with connect(database) as connection:
        connection.execute(sql.SQL("create table worker.migration ({})").format(sql.SQL(columns)))
    for refused in (migrate, check):
        with pytest.raises(SchemaError, match=r'table "migration" in schema "worker" is another program\'s'):
            refused(database)


def test_other_tables_do_not_matter(database: str) -> None:
    """A schema may hold other things beside the queue."""
    execute(database, "create schema worker; create table worker.customer (id uuid)")
    assert migrate(database) == NAMES


def test_no_files(database: str, files: Path) -> None:
    """A package that has lost its migrations says so."""
    for path in files.iterdir():
        path.unlink()
    with pytest.raises(SchemaError, match="install it again"):
        migrate(database)


def test_bad_conninfo() -> None:
    """Text that is no connection string is a ValueError."""
    with pytest.raises(ValueError, match="not a PostgreSQL connection string"):
        migrate("nonsense")
