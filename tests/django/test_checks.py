"""What `manage.py check` says of the queue, and what the first call says where nobody checks."""

import sys
from contextlib import closing

import psycopg
import pytest
from django.core.checks import Tags, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import jobqueue
import jobqueue_pg


def found(**options):
    """Return what the checks of the queue have found."""
    return [(each.id, each.msg) for each in run_checks(**options) if each.id.startswith("jobqueue.")]


def in_database(alias="default"):
    return found(tags=[Tags.database], databases=[alias])


@pytest.fixture
def as_role(new_project):
    """Have the project connect as somebody who may log in, and do nothing else."""
    name = f"nobody_{conninfo_to_dict(new_project)['dbname']}"
    with closing(psycopg.connect(new_project, autocommit=True)) as session:
        jobqueue_pg.migrate(new_project)
        session.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        connections.close_all()
        connections.settings["default"]["USER"] = name
        yield
        connections.close_all()
        session.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_nothing_is_wrong(project):
    """Of a project that is as it should be they say nothing."""
    assert (found(), in_database()) == ([], [])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"THREADZ": 4}, "JOBQUEUE['THREADZ'] is no setting of the job queue: did you mean \"THREADS\"?"),
        (
            {"DATABASE": "queue"},
            "JOBQUEUE[\"DATABASE\"] is 'queue', which is no alias in DATABASES",
        ),
        (
            {"DATABASE": "lite"},
            "JOBQUEUE[\"DATABASE\"] is 'lite', whose ENGINE is 'django.db.backends.sqlite3': a job queue",
        ),
        ({"LISTEN_DATABASE": "direct"}, "JOBQUEUE[\"LISTEN_DATABASE\"] is 'direct', which is no alias in DATABASES"),
    ],
)
def test_wrong_settings(project, said, message):
    """A wrong setting, or alias, is an error of the check, and of the first call where nobody has checked."""
    with override_settings(JOBQUEUE=said):
        [(id, msg)] = found()
        with pytest.raises(ImproperlyConfigured) as error:
            jobqueue.get_status()
        assert in_database() == []
    assert id == "jobqueue.E001"
    assert message in msg
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("alias", "what"),
    [("lite", "which is another database than that of the queue ('default')"), ("maain", "which is no alias")],
)
def test_atomic_handlers_elsewhere(project, alias, what):
    """A handler that is atomic in another database than the queue's is an error, which names the aliases that are."""

    @jobqueue.handler("h", atomic=alias)
    def h(payload):
        pass

    @jobqueue.handler("here", atomic="again")
    def here(payload):
        pass

    [error] = [each for each in run_checks() if each.id == "jobqueue.E002"]
    assert error.msg.startswith(f"the handler of 'h' is atomic in '{alias}', {what}")
    assert "'default' or 'again'" in error.hint


def test_not_migrated(new_project, monkeypatch):
    """Without its tables the queue says how to make them, except to who is about to do it."""
    [(id, msg)] = in_database()
    assert id == "jobqueue.E003"
    assert "holds no queue yet" in msg
    assert "python manage.py migrate" in msg
    with pytest.raises(jobqueue.SchemaError, match=r"python manage\.py migrate"):
        jobqueue.get_status()
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    assert in_database() == []


def test_only_databases_that_are_asked_about(new_project):
    """Where another database is asked about, this one is not."""
    assert in_database("lite") == []


def test_without_rights(as_role):
    """Who may not use the tables is told so, at the check and at the call."""
    [(id, msg)] = in_database()
    assert id == "jobqueue.E003"
    assert "the database user may not do this" in msg
    with pytest.raises(jobqueue.SchemaError, match="the database user may not do this"):
        jobqueue.get_status()


def test_no_answer(new_project):
    """A database that does not answer is an error, without its password."""
    connections.settings["default"].update(HOST="127.0.0.1", PORT="1", PASSWORD="a secret")
    [(id, msg)] = in_database()
    assert id == "jobqueue.E004"
    assert "JOBQUEUE[\"DATABASE\"] 'default', cannot be used" in msg
    assert "secret" not in msg
