"""What test runs do with the database of the project: flushed, it has an empty queue; copied, nobody is in the way."""

from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections
from django.test import TransactionTestCase, override_settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

import jobqueue
import jobqueue_pg
from jobqueue.contrib.django import source
from tests.fixtures.stores import fetch_all

TABLES = ("job", "job_bundle", "schedule", "schedule_tick", "paused_type", "job_archive")


class NothingOfOthers:
    """A router as that of a database which holds the queue alone."""

    def allow_migrate(self, db, app_label, **hints):
        return app_label == "jobqueue"


def rows():
    with connections["default"].cursor() as cursor:
        counted = " union all ".join(f"select '{table}', count(*) from worker.{table}" for table in TABLES)
        cursor.execute(counted)
        return {table: number for table, number in cursor.fetchall() if number}


@pytest.fixture
def filled(project):
    """A queue that has rows in each of its tables."""
    service = jobqueue.current_service()
    with override_settings(JOBQUEUE={"UNKNOWN_TYPES": "allow"}):
        service.pause("mail")
        service.add_schedule("hourly", "report", 1, every=timedelta(hours=1))
        service.run_schedule_now("hourly")
        service.add_bundle(jobqueue.JobBundle.new("import", [jobqueue.JobDesc(1, type="part")]))
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "insert into worker.job_archive select * from (select (jsonb_populate_record(null::worker.job_archive, "
                'to_jsonb(j) || \'{"archived_at": "2026-01-01"}\')).* from worker.job j) archived limit 1'
            )
        assert set(rows()) == set(TABLES)
        yield
        source.close()
    # Which makes the permissions again that other tests rely on.
    call_command("migrate", verbosity=0)
    connections["default"].close()


@pytest.mark.parametrize("how", ["as it is", "serialized_rollback", "available_apps", "a database of its own"])
def test_end_of_a_transaction_test_case(filled, how, monkeypatch):
    """The next test finds an empty queue, whatever the case asks of its database, and whatever else is in it."""
    case = TransactionTestCase()
    if how == "serialized_rollback":
        case.serialized_rollback = True
        monkeypatch.setattr(connections["default"], "_test_serialized_contents", "[]", raising=False)
    elif how == "available_apps":
        case.available_apps = ["jobqueue.contrib.django"]
    with override_settings(DATABASE_ROUTERS=[NothingOfOthers()] if how == "a database of its own" else []):
        case._fixture_teardown()
    assert rows() == {}


def test_flush_of_another_database(filled):
    """What is flushed elsewhere leaves the queue alone."""
    call_command("flush", database="lite", verbosity=0, interactive=False)
    assert set(rows()) == set(TABLES)


def test_flush_without_tables(new_project):
    """Where there is no queue yet, nothing is to be emptied."""
    call_command("flush", verbosity=0, interactive=False)


def test_copies_for_test_runs_in_processes(new_project):
    """A service that was used before does not keep the database from being copied."""
    jobqueue_pg.migrate(new_project)
    assert jobqueue.get_status().num_jobs == 0
    name = f"{connections['default'].settings_dict['NAME']}_1"
    with closing(psycopg.connect(make_conninfo(new_project, dbname="postgres"), autocommit=True)) as session:
        try:
            connections["default"].creation.clone_test_db("1", verbosity=0)
            assert fetch_all(session, "select count(*) from pg_database where datname = %s", name) == [1]
        finally:
            session.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))
