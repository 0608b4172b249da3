"""Django's migrations of the queue: the SQL files, and nothing else."""

from contextlib import suppress
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.test import override_settings

import jobqueue
import jobqueue_pg
from jobqueue.contrib.django import migrations
from jobqueue.contrib.django.operations import ApplyFile
from jobqueue_pg.schema import migrations_dir
from tests.fixtures.catalog import describe
from tests.fixtures.django import set_django_up
from tests.fixtures.pg import fresh_database

FILES = sorted(path.stem for path in migrations_dir().glob("[0-9]*_*.sql"))


def migrate(*arguments, **options):
    """Run the command; return what it says."""
    said = StringIO()
    call_command("migrate", *arguments, stdout=said, **options)
    return said.getvalue()


def has_queue(conninfo):
    with psycopg.connect(conninfo) as connection:
        return connection.execute("select to_regclass('worker.job') is not null").fetchone() == (True,)


def test_each_file_has_its_migration():
    """There is one Django migration for each SQL file, of its name, which applies it, after the one before."""
    named = sorted(path.stem for path in Path(next(iter(migrations.__path__))).glob("[0-9]*_*.py"))
    assert named == FILES


def test_migrations_apply_their_files_in_order(project):
    """Each migration applies the file that it is named after, and comes after the one before it."""
    loader = MigrationLoader(None)
    before = []
    for name in FILES:
        migration = loader.disk_migrations["jobqueue", name]
        assert [each.name for each in migration.operations if isinstance(each, ApplyFile)] == [name]
        assert migration.dependencies == before
        assert not migration.atomic
        before = [("jobqueue", name)]


def test_same_schema(pg_dsn, new_project):
    """What `manage.py migrate` makes is what `jobqueue migrate` makes, in all parts, and is used at once."""
    migrate("jobqueue", verbosity=0)
    with fresh_database(pg_dsn, "template1") as plain:
        jobqueue_pg.migrate(plain)
        assert describe(new_project) == describe(plain)
    assert jobqueue.get_status().num_jobs == 0


def test_mixed(new_project):
    """Each goes on from where the other has left off, and finds nothing to do after it."""
    jobqueue_pg.migrate(new_project, to=2)
    migrate("jobqueue", "0004", verbosity=0)
    assert jobqueue_pg.migrate(new_project, to=5) == ["0005_pause_types"]
    said = migrate("jobqueue")
    assert said.count("OK") == len(FILES) - 4
    assert jobqueue_pg.migrate(new_project) == []
    assert "No migrations to apply" in migrate("jobqueue")


def test_faked(new_project):
    """--fake records what another tool has done."""
    migrate("jobqueue", fake=True, verbosity=0)
    assert not has_queue(new_project)
    with pytest.raises(jobqueue.SchemaError, match="holds no queue yet"):
        jobqueue.get_status()


def test_back_is_refused(new_project):
    """Going back changes nothing, and says what to do instead."""
    migrate("jobqueue", verbosity=0)
    before = describe(new_project)
    with pytest.raises(CommandError, match=r'only go forward.*drop schema "worker" cascade.*zero --fake'):
        migrate("jobqueue", "zero", verbosity=0)
    assert describe(new_project) == before


def test_sql_is_shown(project):
    """With sqlmigrate one sees the file, and the schema that it is for."""
    shown = StringIO()
    call_command("sqlmigrate", "jobqueue", "0001", stdout=shown)
    script = (migrations_dir() / "0001_create_queue.sql").read_text()
    assert script in shown.getvalue()
    assert 'set search_path to "worker", pg_temp;' in shown.getvalue()


def test_other_databases_get_no_queue(new_project):
    """On an alias that is not the queue's database the migrations do nothing."""
    said = migrate("jobqueue", database="lite")
    assert said.count("OK") == len(FILES)
    connections["lite"].close()
    assert not has_queue(new_project)


def test_another_alias_of_the_same_database(new_project):
    """By another alias that leads to the queue's database the queue is migrated, too."""
    migrate("jobqueue", database="again", verbosity=0)
    assert jobqueue_pg.migrate(new_project) == []
    assert has_queue(new_project)


@override_settings(DATABASE_ROUTERS=["tests.django.test_migrations.Nowhere"])
def test_routers_are_heeded(new_project):
    """A router that keeps the app away from the database keeps the queue away."""
    migrate("jobqueue", verbosity=0)
    assert not has_queue(new_project)


class Nowhere:
    def allow_migrate(self, db, app_label, **hints):
        return app_label != "jobqueue"


@override_settings(JOBQUEUE={"SCHEMA": 'my "own"'})
def test_another_schema(new_project):
    """The schema is the one that JOBQUEUE names, whatever its name is."""
    migrate("jobqueue", verbosity=0)
    assert jobqueue_pg.migrate(new_project, schema='my "own"') == []
    shown = StringIO()
    call_command("sqlmigrate", "jobqueue", "0002", stdout=shown)
    assert 'set search_path to "my ""own""", pg_temp;' in shown.getvalue()


def test_what_the_database_refuses(new_project):
    """What stands in the way is said in a line, as a CommandError."""
    with connections["default"].cursor() as cursor:
        cursor.execute("create schema worker; create table worker.migration (id int)")
    with pytest.raises(CommandError, match='table "migration" in schema "worker" is another program\'s'):
        migrate("jobqueue", verbosity=0)


def test_no_changes_to_make(project):
    """There is nothing for makemigrations, nothing that the app's models have and its migrations have not."""
    said = StringIO()
    with suppress(SystemExit):  # which says nothing of the changes
        call_command("makemigrations", "jobqueue", check=True, dry_run=True, stdout=said)
    assert said.getvalue() == "No changes detected in app 'jobqueue'\n"


def test_tables_without_migrations(database):
    """Where a test run makes tables without migrations, the queue's are made all the same."""
    set_django_up(database)
    with override_settings(MIGRATION_MODULES={"jobqueue": None}):
        migrate(run_syncdb=True, verbosity=0)
    assert jobqueue_pg.migrate(database) == []
    assert has_queue(database)
    connections.close_all()
